//! Keys, types, syntax and secrets of `gateway.toml`; `lan-server.toml` goes the same way.
use super::*;

fn refuses(edits: &[(&str, &str)], expected: &[&str]) {
    let errors = Gateway::parse(&edited(GATEWAY, edits), "F").unwrap_err();
    assert_eq!(lines(&errors.0), expected);
}

#[test]
fn unknown_key_names_the_nearest_known_one() {
    refuses(
        &[(
            r#"address     = "10.17.0.1/16""#,
            r#"adress      = "10.17.0.1/16""#,
        )],
        &["11:1: [tunnel]: unknown key `adress`; did you mean `address`?"],
    );
}

#[test]
fn a_key_in_the_wrong_table_is_told_where_it_belongs() {
    refuses(
        &[("endpoint  = ", "listen_port = 51820\nendpoint  = ")],
        &["7:1: [wan]: unknown key `listen_port`; `listen_port` belongs to [tunnel]"],
    );
}

#[test]
fn an_unknown_key_that_resembles_nothing_lists_the_known_ones() {
    refuses(
        &[("tokens = true", r#"colour = "red""#)],
        &["47:1: [admin]: unknown key `colour`; known here: listen, tokens"],
    );
}

#[test]
fn an_unknown_table_names_the_nearest_known_one() {
    refuses(
        &[("[admin]", "[admim]")],
        &["45:2: unknown key `admim`; did you mean `admin`?"],
    );
}

#[test]
fn wrong_types_tell_expected_and_found() {
    refuses(
        &[
            ("mtu         = 1420", r#"mtu         = "1420""#),
            (r#"interface = "eth0" "#, "interface = 0      "),
            ("tokens = true", r#"tokens = "yes""#),
            (
                r#"allow     = ["cloudflare"]"#,
                r#"allow     = "cloudflare""#,
            ),
        ],
        &[
            "6:13: [wan]: `interface` has to be a string, but this is an integer",
            "13:15: [tunnel]: `mtu` has to be an integer, but this is a string",
            r#"29:13: publish "ingress": `allow` has to be an array such as ["cloudflare"] or ["any"], but this is a string"#,
            "47:10: [admin]: `tokens` has to be true or false, but this is a string",
        ],
    );
}

#[test]
fn one_table_where_several_are_possible_is_refused() {
    refuses(
        &[("[[publish]]  ", "[publish]  ")],
        &[
            "24:1: `publish` can occur several times; write [[publish]] with double brackets above each",
        ],
    );
}

#[test]
fn several_tables_where_one_is_possible_are_refused() {
    refuses(
        &[("[tunnel]", "[[tunnel]]")],
        &["9:1: `tunnel` has to be one table; write its keys below a line [tunnel]"],
    );
}

#[test]
fn a_key_that_is_no_table_is_refused() {
    refuses(
        &[
            (r#"runtime_dir = "/run/wg-edge""#, r#"wan = "eth0""#),
            ("[wan]", "[admin]"),
            (r#"interface = "eth0"  "#, "#"),
            (r#"endpoint  = "203"#, "#"),
            ("[admin]\nlisten", "#"),
        ],
        &[
            "3:7: `wan` has to be one table; write its keys below a line [wan]",
            r#"46:1: peer "alice": unknown key `tokens`; `tokens` belongs to [admin]"#,
        ],
    );
}

#[test]
fn syntax_errors_have_line_and_column() {
    refuses(
        &[
            ("mtu         = 1420", "mtu         = 1420 bytes"),
            ("tokens = true", "tokens = true\ntokens = false"),
        ],
        &[
            "13:15: not valid TOML: string values must be quoted, expected literal string",
            "48:1: not valid TOML: duplicate key",
        ],
    );
}

#[test]
fn syntax_errors_do_not_quote_the_line() {
    refuses(
        &[(r#"public_key = "KEY0""#, r#"public_key = "KEY0"#)],
        &[r#"19:59: not valid TOML: invalid basic string, expected `"`"#],
    );
}

#[test]
fn missing_tables_and_keys_are_named_with_their_place() {
    refuses(
        &[
            (
                r#"[wan]
interface = "eth0"                   # or "auto": the link of the default route
endpoint  = "203.0.113.10:51820"     # what peers dial; a Cloudflare-proxied name is refused (UDP is never proxied)"#,
                "",
            ),
            (r#"vip       = "10.17.5.30""#, ""),
            (r#"name = "alice""#, ""),
        ],
        &[
            "1:1: the table [wan] is missing; its keys are: interface, endpoint",
            r#"22:1: publish "ingress": the key `vip` is missing; write for example vip = "10.17.5.30""#,
            r#"37:1: peer number 1: the key `name` is missing; write for example name = "home""#,
        ],
    );
}

#[test]
fn every_independent_mistake_is_reported_at_once() {
    refuses(
        &[
            (r#"state_dir   = "/var"#, r#"state_dir   = "var"#),
            ("mtu         = 1420", "mtu         = 90"),
            (r#""10.17.4.0/24""#, r#""10.17.4.9/24""#),
            ("ports     = [80, 443]", "ports     = [80, 70000, 0]"),
            (
                r#"allow     = ["cloudflare"]"#,
                r#"allow     = ["cloudfare"]"#,
            ),
            (r#"role = "kube-admin""#, r#"role = "kube-admn""#),
        ],
        &[
            r#"2:15: "var/lib/wg-edge" is not an absolute path; begin it with /"#,
            "13:15: [tunnel]: `mtu` is 90, out of range; write 576 to 65455",
            r#"22:31: lan_server "home": "10.17.4.9/24" has host bits set; the network is 10.17.4.0/24"#,
            r#"28:18: publish "ingress": port 70000 is out of range; ports are 1 to 65535"#,
            r#"28:25: publish "ingress": port 0 is out of range; ports are 1 to 65535"#,
            r#"29:14: publish "ingress": there is no set "cloudfare"; did you mean "cloudflare"?"#,
            r#"43:8: peer "alice": there is no role "kube-admn"; did you mean "kube-admin"?"#,
        ],
    );
}

#[test]
fn relative_directories_are_refused() {
    refuses(
        &[(
            r#"runtime_dir = "/run/wg-edge""#,
            r#"runtime_dir = "wg-edge""#,
        )],
        &[r#"3:15: "wg-edge" is not an absolute path; begin it with /"#],
    );
}

#[test]
fn names_are_unique_among_peers_and_lan_servers() {
    refuses(
        &[(r#"name = "alice""#, r#"name = "home""#)],
        &[
            r#"40:8: peer "home": the name "home" is already that of lan_server "home" on line 18; take another one"#,
        ],
    );
}

#[test]
fn names_of_publishes_are_unique() {
    refuses(
        &[(
            "tokens = true\n",
            r#"tokens = true

[[publish]]
name = "ingress"
vip = "10.17.5.30"
protocol = "udp"
ports = [443]
allow = ["office"]
"#,
        )],
        &[
            r#"50:8: publish "ingress": the name "ingress" is already that of publish "ingress" on line 25; take another one"#,
        ],
    );
}

#[test]
fn names_of_roles_are_unique() {
    refuses(
        &[(
            "tokens = true\n",
            r#"tokens = true

[[role]]
name = "kube-admin"
allow = ["10.17.5.30:80/tcp"]
"#,
        )],
        &[
            r#"50:8: role "kube-admin": the name "kube-admin" is already that of role "kube-admin" on line 33; take another one"#,
        ],
    );
}

#[test]
fn names_have_letters_digits_and_two_signs() {
    refuses(
        &[
            (r#"name = "alice""#, r#"name = "al ice""#),
            (
                r#"name       = "home""#,
                r#"name       = "hhhhhhhhhhhhhhhhhhhhhhhhhhhhhhhhhhhhhhhhhhhhhhhhhhhhhhhhhhhhhhhh""#,
            ),
            (r#"name      = "ingress""#, r#"name      = """#),
        ],
        &[
            r#"18:14: lan_server "hhhhhhhhhhhhhhhhhhhhhhhhhhhhhhhhhhhhhhhhhhhhhhhhhhhhhhhhhhhh…": "hhhhhhhhhhhhhhhhhhhhhhhhhhhhhhhhhhhhhhhhhhhhhhhhhhhhhhhhhhhh…" is not a name; names have 1 to 63 letters, digits, '_' or '-'"#,
            r#"25:13: publish "": "" is not a name; names have 1 to 63 letters, digits, '_' or '-'"#,
            r#"40:8: peer "al ice": "al ice" is not a name; names have 1 to 63 letters, digits, '_' or '-'"#,
        ],
    );
}

#[test]
fn public_keys_are_unique_and_not_echoed() {
    refuses(
        &[("KEY1", "KEY0")],
        &[
            r#"41:14: peer "alice": this public key is already that of lan_server "home" on line 19; take another one"#,
        ],
    );
}

#[test]
fn malformed_keys_are_refused_and_not_echoed() {
    refuses(
        &[
            ("KEY1", "KEY1xyz"),
            ("KEY0", "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA="),
        ],
        &[
            r#"19:14: lan_server "home": this key is all zeros; write the output of `wg pubkey`"#,
            r#"41:14: peer "alice": not a WireGuard key: expected 32 bytes as 44 characters of base64"#,
        ],
    );
}

#[test]
fn a_key_in_place_of_a_key_file_is_refused_and_not_echoed() {
    refuses(
        &[(r#""gateway.key" "#, r#""KEY2""#)],
        &[
            "14:20: [tunnel]: this is a key, not the path of a file; make a new key, put it into a file with mode 0600 below state_dir and write the name of the file here",
        ],
    );
}

#[test]
fn a_key_under_an_unknown_name_is_not_echoed() {
    refuses(
        &[("mtu         = 1420", r#"private_key = "KEY2""#)],
        &[
            "13:1: [tunnel]: unknown key `private_key`; known here: interface, address, listen_port, mtu, private_key_file, fwmark, threads",
        ],
    );
}

#[test]
fn names_of_sets_are_checked() {
    refuses(
        &[(
            r#"office = ["198.51.100.0/24"]"#,
            r#""our office" = ["198.51.100.0/24"]"#,
        )],
        &[
            r#"37:1: [sets]: "our office" is not a name; names have 1 to 63 letters, digits, '_' or '-'"#,
        ],
    );
}

#[test]
fn a_misspelt_table_is_not_missing_as_well() {
    refuses(
        &[("[[lan_server]]", "[[lan_servers]]"), ("[wan]", "[wans]")],
        &[
            "5:2: unknown key `wans`; did you mean `wan`?",
            "17:3: unknown key `lan_servers`; did you mean `lan_server`?",
        ],
    );
}
