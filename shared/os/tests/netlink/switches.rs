//! Kernel switches, and what they were before us.
use std::fs;

use shared::plan::Sysctl;
use shared_os::netns;
use shared_os::sysctl::{self, Remembered, RememberedError, Restored, SysctlError};

use crate::world::switch;

const FORWARD: [&str; 3] = ["net", "ipv4", "ip_forward"];
const LOCAL_PORTS: [&str; 3] = ["net", "ipv4", "ip_local_port_range"];

fn live(sysctl: &Sysctl) -> Option<String> {
    sysctl::read(&sysctl.path).unwrap().value
}

/// What a reconcile does with a switch.
fn note_and_set(remembered: &mut Remembered, sysctl: &Sysctl) {
    remembered.note(sysctl, live(sysctl).as_deref()).unwrap();
    sysctl::write(&sysctl.path, &sysctl.value).unwrap();
}

#[test]
fn former_value_comes_back_after_restarts_and_changes_of_mind() {
    netns::run(|| {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("sysctl.json");
        let before = live(&switch(&LOCAL_PORTS, "", false)).unwrap();
        for value in ["2000 3000", "2000 3000", "4000 5000"] {
            // As a new process each time.
            let mut remembered = Remembered::open(dir.path()).unwrap();
            note_and_set(&mut remembered, &switch(&LOCAL_PORTS, value, false));
        }
        assert!(file.exists());
        let mut remembered = Remembered::open(dir.path()).unwrap();
        let restored = remembered.restore().unwrap();
        assert!(
            matches!(restored.as_slice(), [Restored::Back { .. }]),
            "{restored:?}"
        );
        assert_eq!(live(&switch(&LOCAL_PORTS, "", false)).unwrap(), before);
        assert!(!file.exists());
        assert!(remembered.restore().unwrap().is_empty());
    });
}

#[test]
fn value_that_others_set_since_is_left_alone() {
    netns::run(|| {
        let dir = tempfile::tempdir().unwrap();
        let mut remembered = Remembered::open(dir.path()).unwrap();
        let ports = switch(&LOCAL_PORTS, "2000 3000", false);
        note_and_set(&mut remembered, &ports);
        sysctl::write(&ports.path, "6000 7000").unwrap();
        let restored = remembered.restore().unwrap();
        assert!(
            matches!(restored.as_slice(), [Restored::LeftAlone { .. }]),
            "{restored:?}"
        );
        assert_eq!(live(&ports).unwrap(), "6000\t7000");
        assert!(!dir.path().join("sysctl.json").exists());
    });
}

#[test]
fn crash_between_note_and_change_restores_nothing() {
    netns::run(|| {
        let dir = tempfile::tempdir().unwrap();
        let forward = switch(&FORWARD, "1", false);
        let mut remembered = Remembered::open(dir.path()).unwrap();
        remembered.note(&forward, Some("0")).unwrap();
        let mut remembered = Remembered::open(dir.path()).unwrap();
        let restored = remembered.restore().unwrap();
        assert!(
            matches!(restored.as_slice(), [Restored::LeftAlone { .. }]),
            "{restored:?}"
        );
        assert_eq!(live(&forward).as_deref(), Some("0"));
    });
}

#[test]
fn switches_of_our_own_links_are_not_remembered() {
    netns::run(|| {
        let dir = tempfile::tempdir().unwrap();
        let mut remembered = Remembered::open(dir.path()).unwrap();
        let own = switch(&["net", "ipv4", "conf", "lo", "rp_filter"], "2", true);
        note_and_set(&mut remembered, &own);
        assert!(!dir.path().join("sysctl.json").exists());
        assert!(remembered.restore().unwrap().is_empty());
    });
}

#[test]
fn file_with_other_content_is_refused_and_kept() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("sysctl.json");
    fs::write(&file, "{\"half\": ").unwrap();
    let error = Remembered::open(dir.path()).unwrap_err();
    assert!(matches!(error, RememberedError::Content { .. }), "{error}");
    assert!(file.exists());
}

#[test]
fn errors_name_the_file_and_the_reason() {
    netns::run(|| {
        let path = |parts: &[&str]| parts.iter().map(ToString::to_string).collect::<Vec<_>>();
        let error = sysctl::write(&path(&FORWARD), "many").unwrap_err();
        assert_eq!(
            error.to_string(),
            "/proc/sys/net/ipv4/ip_forward does not take the value \"many\""
        );
        let absent = path(&["net", "ipv4", "conf", "edge0.100", "rp_filter"]);
        assert_eq!(sysctl::read(&absent).unwrap().value, None);
        let error = sysctl::write(&absent, "2").unwrap_err();
        assert_eq!(
            error.to_string(),
            "the kernel has no switch /proc/sys/net/ipv4/conf/edge0.100/rp_filter"
        );
        let bad = [&[][..], &["net", ".."], &["net", "a/b"], &["net", ""]];
        for bad in bad.map(path) {
            let error = sysctl::read(&bad).unwrap_err();
            assert!(matches!(error, SysctlError::Path { .. }), "{error}");
        }
    });
}

#[test]
fn switches_are_those_of_the_threads_own_namespace() {
    let forward = switch(&FORWARD, "1", false);
    let outside = live(&forward);
    netns::run(|| {
        assert_eq!(live(&forward).as_deref(), Some("0"));
        sysctl::write(&forward.path, "1").unwrap();
    });
    assert_eq!(live(&forward), outside);
}
