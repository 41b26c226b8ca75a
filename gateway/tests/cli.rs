//! What is made from the definition of the arguments is taken by the programs that it is for; and how the real program ends.
#![expect(clippy::unwrap_used, reason = "a test that can't go on has failed")]
use std::path::Path;
use std::process::{Command, Output};

fn gateway(arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_gateway"));
    command.args(arguments).output().unwrap()
}

fn is_installed(program: &str) -> bool {
    Command::new(program).arg("--version").output().is_ok()
}

/// Fails with what the program says unless it ends well and says nothing.
fn accepts(program: &str, arguments: &[&str], file: &Path) {
    let output = Command::new(program)
        .args(arguments)
        .arg(file)
        .env("LC_ALL", "C.UTF-8")
        .output()
        .unwrap_or_else(|error| panic!("{program}: {error}"));
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(
        output.status.success() && said.is_empty(),
        "{program} {}: {}\n{said}",
        file.display(),
        output.status
    );
}

#[test]
fn shells_take_their_completions() {
    let dir = tempfile::tempdir().unwrap();
    for (shell, arguments) in [
        ("bash", &["-n"]),
        ("zsh", &["-n"]),
        ("fish", &["--no-execute"]),
    ] {
        let made = gateway(&["completions", shell]);
        assert!(made.status.success(), "{shell}");
        assert!(made.stdout.len() > 1000, "{shell}");
        let file = dir.path().join(shell);
        std::fs::write(&file, made.stdout).unwrap();
        // bash is everywhere; of the others those that are there have their say.
        if shell == "bash" || is_installed(shell) {
            accepts(shell, arguments, &file);
        }
    }
}

#[test]
fn completion_in_bash_knows_the_commands_of_a_command() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("completions");
    std::fs::write(&file, gateway(&["completions", "bash"]).stdout).unwrap();
    let script = ". \"$0\"; COMP_WORDS=(gateway peer \"\"); COMP_CWORD=2; _gateway gateway \"\" peer; \
        printf '%s\\n' \"${COMPREPLY[@]}\"";
    let output = Command::new("bash")
        .args(["-c", script])
        .arg(&file)
        .output()
        .unwrap();
    let offered = String::from_utf8_lossy(&output.stdout);
    for command in ["add", "list", "rotate", "reset-usage"] {
        assert!(offered.lines().any(|line| line == command), "{output:?}");
    }
}

#[test]
fn each_command_has_a_page_that_groff_sets_without_a_warning() {
    let dir = tempfile::tempdir().unwrap();
    let made = gateway(&["man", dir.path().to_str().unwrap()]);
    assert!(made.status.success(), "{made:?}");
    let entries = std::fs::read_dir(dir.path()).unwrap();
    let mut pages: Vec<_> = entries.map(|entry| entry.unwrap().path()).collect();
    pages.sort();
    for command in [
        "gateway",
        "gateway-peer-add",
        "gateway-token",
        "gateway-audit-verify",
    ] {
        let page = dir.path().join(format!("{command}.8"));
        assert!(pages.contains(&page), "{command}: {pages:?}");
    }
    for page in &pages {
        // That a line has no place to be filled up to is no fault.
        let arguments = ["-man", "-Kutf8", "-Tutf8", "-ww", "-Wbreak", "-z"];
        accepts("groff", &arguments, page);
        let text = std::fs::read_to_string(page).unwrap();
        for section in [".SH NAME", ".SH SYNOPSIS", ".SH DESCRIPTION"] {
            assert!(text.contains(section), "{section}: {}", page.display());
        }
    }
}

#[test]
fn exit_codes_are_those_that_help_documents() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("gateway.toml");
    std::fs::write(&file, "nonsense = 1\n").unwrap();
    let file = file.to_str().unwrap();
    let nobody = dir.path().join("nobody.sock");
    let nobody = nobody.to_str().unwrap();
    for (arguments, code, said) in [
        (&["--help"][..], 0, ""),
        (&["check", "--config", file], 1, "nonsense"),
        (&["peer", "list", "--config", file], 1, "nonsense"),
        (&["peer", "lst"], 2, "lst"),
        (&["peer", "set", "alice"], 2, "required"),
        (&["peer", "list", "--socket", nobody], 3, "does not run"),
        (&["status", "--json", "--socket", nobody], 3, "does not run"),
        (&["events", "--socket", nobody], 3, "does not run"),
    ] {
        let output = gateway(arguments);
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(code), "{arguments:?}: {stderr}");
        assert!(stderr.contains(said), "{arguments:?}: {stderr}");
        let stdout = String::from_utf8_lossy(&output.stdout);
        assert_eq!(stdout.is_empty(), code != 0, "{arguments:?}: {stdout}");
    }
    let help = gateway(&["--help"]);
    let help = String::from_utf8_lossy(&help.stdout);
    assert!(help.contains("Exit codes:"), "{help}");
}
