//! The documentation holds together: links lead somewhere, the Spanish pages are those in English, every block of commands
//! is tested, and our programs understand every command line of theirs.
mod commands;
mod links;
mod spanish;
