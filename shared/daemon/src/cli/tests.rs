//! Facts about arguments that both programs understand.
use std::convert::Infallible;

use super::*;
use crate::simulation::NoFiles;

type Both = Arguments<Infallible, NoFiles>;

#[test]
fn the_definition_of_the_arguments_is_consistent() {
    Both::command().debug_assert();
}

#[test]
fn options_that_all_commands_have_stand_anywhere() {
    for line in [
        "x --config c.toml --socket s.sock status --json",
        "x status --config c.toml --json --socket s.sock",
    ] {
        let arguments = Both::try_parse_from(line.split(' ')).unwrap();
        assert_eq!(arguments.config.as_deref(), Some(Path::new("c.toml")));
        assert_eq!(arguments.socket.as_deref(), Some(Path::new("s.sock")));
        assert!(matches!(arguments.command, Command::Status { json: true }));
    }
    assert!(Both::try_parse_from(["x", "peer", "list"]).is_err());
}
