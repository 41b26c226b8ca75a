//! What is made from the definition of the arguments: completions and the manual.
use std::path::Path;

use clap_complete::Shell;

use super::output::print;
use crate::error::Failure;
use crate::product::Product;

pub(super) fn completions<P: Product>(shell: Shell) -> Result<(), Failure> {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut super::command::<P>(), P::NAME, &mut script);
    print(&String::from_utf8_lossy(&script))
}

/// `gateway.8`, `gateway-peer.8`, `gateway-peer-add.8`, …
pub(super) fn manual<P: Product>(directory: &Path) -> Result<(), Failure> {
    let written = std::fs::create_dir_all(directory).and_then(|()| {
        let mut root = super::command::<P>().disable_help_subcommand(true);
        // Names of subcommands are made whole: `gateway-peer-add`.
        root.build();
        pages(&root, directory)
    });
    written.map_err(|error| Failure::Environment(format!("{}: {error}", directory.display())))
}

fn pages(command: &clap::Command, directory: &Path) -> std::io::Result<()> {
    // Section 8: commands for the administrator (man-pages(7)).
    let man = clap_mangen::Man::new(command.clone())
        .section("8")
        .manual("wg-edge");
    let mut page = Vec::new();
    man.render(&mut page)?;
    std::fs::write(directory.join(man.get_filename()), page)?;
    command
        .get_subcommands()
        .try_for_each(|sub| pages(sub, directory))
}
