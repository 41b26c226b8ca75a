//! `[cloudflare]` of both files.
use super::*;

/// Sets of the file with a list of its own.
const OWN: &str = "[sets]\ncloudflare = [\"192.0.2.0/24\"]\n";

/// Both examples with these lines at their end, which may have [`OWN`] among them.
fn both(more: &str) -> [String; 2] {
    [GATEWAY, LAN_SERVER].map(|base| {
        // The gateway's example has sets already.
        let base = edited(base, &[]);
        let without = base.replace("[sets] ", "# ").replace("office = ", "# ");
        without + more
    })
}

/// What each file says of its refresh, and whether the set is refreshed.
fn refreshes(more: &str) -> [Option<Refresh>; 2] {
    let [of_gateway, of_lan_server] = both(more);
    let gateway = Gateway::parse(&of_gateway, "F").unwrap().config;
    let lan_server = LanServer::parse(&of_lan_server, "F").unwrap().config;
    assert_eq!(gateway.ranges().refresh, gateway.refresh);
    assert_eq!(lan_server.ranges().refresh, lan_server.refresh);
    [gateway.refresh, lan_server.refresh]
}

/// The only error of both files, which points at `refresh` and begins so.
fn refuses(more: &str, message: &str) {
    let [of_gateway, of_lan_server] = both(more);
    for (text, errors) in [
        (&of_gateway, Gateway::parse(&of_gateway, "F").unwrap_err()),
        (
            &of_lan_server,
            LanServer::parse(&of_lan_server, "F").unwrap_err(),
        ),
    ] {
        let line = text.lines().position(|line| line.starts_with("refresh"));
        let expected = format!("{}:11: [cloudflare]: {message}", line.unwrap() + 1);
        let found = lines(&errors.0);
        assert_eq!(found.len(), 1, "{found:?}");
        assert!(found[0].starts_with(&expected), "{expected}: {found:?}");
    }
}

#[test]
fn lists_come_from_a_url_or_a_file_or_nowhere() {
    let url = |text: &str| Some(Refresh::Url(text.parse().unwrap()));
    for (more, expected) in [
        ("", url("https://api.cloudflare.com/client/v4/ips")),
        (
            "\n[cloudflare]\n",
            url("https://api.cloudflare.com/client/v4/ips"),
        ),
        (
            "\n[cloudflare]\nrefresh = \"https://mirror.example:8443/ips\"\n",
            url("https://mirror.example:8443/ips"),
        ),
        (
            "\n[cloudflare]\nrefresh = \"/etc/wg-edge/cloudflare.txt\"\n",
            Some(Refresh::File("/etc/wg-edge/cloudflare.txt".into())),
        ),
        ("\n[cloudflare]\nrefresh = \"off\"\n", None),
        (OWN, None),
        (&format!("\n[cloudflare]\nrefresh = \"off\"\n{OWN}"), None),
    ] {
        assert_eq!(refreshes(more), [expected.clone(), expected], "{more}");
    }
}

#[test]
fn what_can_not_be_refreshed_from_is_refused_with_a_remedy() {
    for (value, message) in [
        (
            "\"http://www.cloudflare.com/ips-v4\"",
            "\"http://www.cloudflare.com/ips-v4\" can be changed on the way by anybody, and with it who may call; begin it \
             with https://",
        ),
        (
            "\"https://user@a.example/\"",
            "\"https://user@a.example/\" is no URL of a list: it may hold no user and no password; write for example",
        ),
        (
            "\"cloudflare.txt\"",
            "\"cloudflare.txt\" is neither a URL nor the absolute path of a file; write",
        ),
        ("\"/etc/wg-edge/\"", "\"/etc/wg-edge/\" is neither a URL"),
        ("\"\"", "\"\" is neither a URL"),
        ("true", "`refresh` has to be a string"),
    ] {
        refuses(&format!("\n[cloudflare]\nrefresh = {value}\n"), message);
    }
}

#[test]
fn a_refresh_of_what_the_file_sets_itself_is_refused() {
    refuses(
        &format!("\n[cloudflare]\nrefresh = \"/list\"\n{OWN}"),
        "`refresh` and the set `cloudflare` in [sets] contradict each other; keep one of them",
    );
}

#[test]
fn nothing_is_refreshed_that_nobody_names() {
    let gateway = edited(GATEWAY, &[("[\"cloudflare\"]", "[\"192.0.2.0/24\"]")]);
    assert_eq!(
        Gateway::parse(&gateway, "F")
            .unwrap()
            .config
            .ranges()
            .refresh,
        None
    );
    let lan_server = edited(LAN_SERVER, &[("[\"cloudflare\"]", "[\"192.0.2.0/24\"]")]);
    assert_eq!(
        LanServer::parse(&lan_server, "F")
            .unwrap()
            .config
            .ranges()
            .refresh,
        None
    );
}

#[test]
fn networks_of_ours_are_known() {
    let gateway = Gateway::parse(&edited(GATEWAY, &[]), "F").unwrap().config;
    let lan_server = LanServer::parse(&edited(LAN_SERVER, &[]), "F")
        .unwrap()
        .config;
    for ranges in [gateway.ranges(), lan_server.ranges()] {
        assert_eq!(ranges.networks, cloudflare::networks());
        for ours in ["203.0.113.10/32", "10.17.0.0/16", "10.17.5.30/32"] {
            assert!(
                ranges.ours.contains(&ours.parse().unwrap()),
                "{ours}: {ranges:?}"
            );
        }
    }
}
