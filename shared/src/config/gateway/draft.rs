//! `gateway.toml` as written: every field read on its own, later checked against the others.
use std::net::{IpAddr, SocketAddr};

use ipnetwork::IpNetwork;

use super::{Admin, Gateway, LanServerPeer, Peer, Publish, Role, Wan};
use crate::config::check::{Owned, keyed};
use crate::config::common::{Endpoint, PortMap, Protocol, Service, SourceIp};
use crate::config::document::{Table, TableKeys};
use crate::config::fields::{self, Dirs, IdentityDraft, TunnelDefaults, TunnelDraft};
use crate::config::policy_test::{self, TestDraft};
use crate::config::refresh::{self, RefreshDraft};
use crate::config::report::{Field, List, Located, Reported};
use crate::config::sources::{self, Sets, SourcesDraft};
use crate::config::value::{Quoted, parse_name, parse_network};
use crate::model::{InterfaceName, PublicKey};

/// Every key of `gateway.toml`.
pub const KEYS: &[TableKeys] = &[
    TableKeys {
        table: "",
        repeated: false,
        keys: &[
            "state_dir",
            "runtime_dir",
            "wan",
            "tunnel",
            "lan_server",
            "publish",
            "role",
            "sets",
            "cloudflare",
            "peer",
            "admin",
            "test",
        ],
    },
    TableKeys {
        table: "wan",
        repeated: false,
        keys: &["interface", "endpoint"],
    },
    TableKeys {
        table: "tunnel",
        repeated: false,
        keys: &fields::TUNNEL_KEYS,
    },
    TableKeys {
        table: "lan_server",
        repeated: true,
        keys: &[
            "name",
            "public_key",
            "preshared_key_file",
            "address",
            "networks",
        ],
    },
    TableKeys {
        table: "publish",
        repeated: true,
        keys: &["name", "vip", "protocol", "ports", "allow", "source_ip"],
    },
    TableKeys {
        table: "role",
        repeated: true,
        keys: &["name", "allow"],
    },
    TableKeys {
        table: "sets",
        repeated: false,
        keys: &[],
    },
    TableKeys {
        table: "cloudflare",
        repeated: false,
        keys: &refresh::KEYS,
    },
    TableKeys {
        table: "peer",
        repeated: true,
        keys: &[
            "name",
            "public_key",
            "preshared_key_file",
            "address",
            "role",
        ],
    },
    TableKeys {
        table: "admin",
        repeated: false,
        keys: &["listen", "tokens"],
    },
    TableKeys {
        table: "test",
        repeated: true,
        keys: &policy_test::KEYS,
    },
];

const TUNNEL: TunnelDefaults = TunnelDefaults {
    address: "\"10.17.0.1/16\"",
    listen_port: 51820,
    least_listen_port: 1,
    private_key_file: "gateway.key",
};

/// The file as far as it could be read.
#[derive(Debug)]
pub(super) struct Draft {
    dirs: Dirs,
    pub(super) wan: Result<WanDraft, Reported>,
    pub(super) tunnel: Result<TunnelDraft, Reported>,
    pub(super) lan_servers: List<LanServerDraft>,
    pub(super) publishes: List<PublishDraft>,
    pub(super) roles: List<RoleDraft>,
    pub(super) sets: Sets,
    pub(super) refresh: RefreshDraft,
    pub(super) peers: List<PeerDraft>,
    pub(super) admin: Result<AdminDraft, Reported>,
    pub(super) tests: List<TestDraft>,
}

#[derive(Debug)]
pub(super) struct WanDraft {
    /// `None` for `"auto"`.
    pub(super) interface: Field<Option<InterfaceName>>,
    pub(super) endpoint: Field<Endpoint>,
}

#[derive(Debug)]
pub(super) struct LanServerDraft {
    pub(super) identity: IdentityDraft,
    pub(super) public_key: Result<Option<Located<PublicKey>>, Reported>,
    pub(super) networks: List<Located<IpNetwork>>,
}

#[derive(Debug)]
pub(super) struct PublishDraft {
    pub(super) label: String,
    pub(super) name: Field<String>,
    pub(super) vip: Field<IpAddr>,
    pub(super) protocol: Field<Protocol>,
    pub(super) ports: List<Located<PortMap>>,
    pub(super) allow: Result<SourcesDraft, Reported>,
    pub(super) source_ip: Field<SourceIp>,
}

#[derive(Debug)]
pub(super) struct RoleDraft {
    pub(super) label: String,
    pub(super) name: Field<String>,
    pub(super) allow: List<Located<Service>>,
}

#[derive(Debug)]
pub(super) struct PeerDraft {
    pub(super) identity: IdentityDraft,
    pub(super) public_key: Field<PublicKey>,
    pub(super) role: Result<Option<Located<String>>, Reported>,
}

#[derive(Debug)]
pub(super) struct AdminDraft {
    pub(super) label: String,
    pub(super) listen: Result<Option<Located<SocketAddr>>, Reported>,
    pub(super) tokens: Field<bool>,
}

pub(super) fn read(root: &Table<'_>) -> Draft {
    Draft {
        dirs: fields::dirs(root),
        wan: root.table("wan").map(|table| wan(&table)),
        tunnel: root
            .table("tunnel")
            .map(|table| fields::tunnel(&table, &TUNNEL)),
        lan_servers: root.tables("lan_server").map(|table| lan_server(&table)),
        publishes: root.tables("publish").map(|table| publish(&table)),
        roles: root.tables("role").map(|table| role(&table)),
        sets: sources::sets(root),
        refresh: refresh::refresh(root),
        peers: root.tables("peer").map(|table| peer(&table)),
        admin: root.table_or_empty("admin").map(|table| admin(&table)),
        tests: policy_test::tests(root),
    }
}

fn wan(table: &Table<'_>) -> WanDraft {
    WanDraft {
        interface: table.get_or("interface", None, |value| match value.text()?.value {
            "auto" => Ok(value.text()?.map(|_| None)),
            _ => Ok(value.parse()?.map(Some)),
        }),
        endpoint: fields::endpoint(table),
    }
}

fn lan_server(table: &Table<'_>) -> LanServerDraft {
    const EXAMPLE: &str = "[\"10.17.3.0/24\"]";
    let networks = table.require_list("networks", EXAMPLE, |value| {
        value.elements(&format!("an array such as {EXAMPLE}"), |element| {
            element.parse_with(parse_network)
        })
    });
    LanServerDraft {
        identity: fields::identity(table, "\"10.17.0.2\""),
        public_key: fields::optional_public_key(table),
        networks,
    }
}

fn publish(table: &Table<'_>) -> PublishDraft {
    PublishDraft {
        label: table.label().to_owned(),
        name: fields::name(table),
        vip: fields::vip(table),
        protocol: fields::protocol(table),
        ports: fields::ports(table, str::parse::<PortMap>),
        allow: sources::sources(table, "allow"),
        source_ip: fields::source_ip(table, SourceIp::Preserve),
    }
}

fn role(table: &Table<'_>) -> RoleDraft {
    RoleDraft {
        label: table.label().to_owned(),
        name: fields::name(table),
        allow: fields::services(table, "allow"),
    }
}

fn peer(table: &Table<'_>) -> PeerDraft {
    PeerDraft {
        identity: fields::identity(table, "\"10.17.0.10\""),
        public_key: fields::public_key(table),
        role: table.get_and("role", |value| value.parse_with(parse_name)),
    }
}

fn admin(table: &Table<'_>) -> AdminDraft {
    let listen = |text: &str| {
        (text.parse::<SocketAddr>().ok())
            .filter(|socket| socket.port() != 0)
            .ok_or_else(|| {
                let shown = Quoted::text(text);
                format!(
                    "{shown} is not address:port with a port from 1 to 65535; \
                     write for example \"10.17.0.1:8443\""
                )
            })
    };
    AdminDraft {
        label: table.label().to_owned(),
        listen: table.get_and("listen", |value| value.parse_with(listen)),
        tokens: table.get_or("tokens", true, |value| value.boolean()),
    }
}

impl Draft {
    /// All peers: names, keys and addresses are unique among them.
    pub(super) fn identities(&self) -> impl Iterator<Item = &IdentityDraft> + Clone {
        let lan_servers = self.lan_servers.items.iter().map(|server| &server.identity);
        lan_servers.chain(self.peers.items.iter().map(|peer| &peer.identity))
    }

    /// The keys of all peers that have one.
    pub(super) fn keys(&self) -> Vec<Owned<'_, PublicKey>> {
        let lan_servers = self.lan_servers.items.iter().filter_map(|server| {
            let key = server.public_key.as_ref().ok()?;
            keyed(&server.identity, key.as_ref())
        });
        let peers = self.peers.items.iter();
        let peers = peers.filter_map(|p| keyed(&p.identity, p.public_key.as_ref().ok()));
        lan_servers.chain(peers).collect()
    }

    /// The checked form, if every field could be read.
    pub(super) fn build(self) -> Result<Gateway, Reported> {
        let Self {
            dirs,
            wan,
            tunnel,
            lan_servers,
            publishes,
            roles,
            sets,
            refresh,
            peers,
            admin,
            tests,
        } = self;
        let publishes = publishes.try_map(PublishDraft::build)?;
        Ok(Gateway {
            wan: wan?.build()?,
            tunnel: tunnel?.build(&dirs)?,
            lan_servers: lan_servers.try_map(|server| server.build(&dirs))?,
            roles: roles.try_map(RoleDraft::build)?,
            tests: tests.try_map(|test| test.build(&sets))?,
            refresh: refresh.build(&sets)?,
            sets: sets.build(
                &publishes
                    .iter()
                    .map(|publish| &publish.allow)
                    .collect::<Vec<_>>(),
            )?,
            publishes,
            peers: peers.try_map(|peer| peer.build(&dirs))?,
            admin: admin?.build()?,
            state_dir: dirs.state?.value,
            runtime_dir: dirs.runtime?.value,
        })
    }
}

impl WanDraft {
    fn build(self) -> Result<Wan, Reported> {
        Ok(Wan {
            interface: self.interface?.value,
            endpoint: self.endpoint?.value,
        })
    }
}

impl LanServerDraft {
    fn build(self, dirs: &Dirs) -> Result<LanServerPeer, Reported> {
        let mut networks = self.networks.into_values()?;
        networks.sort_unstable();
        Ok(LanServerPeer {
            name: self.identity.name?.value,
            public_key: self.public_key?.map(|key| key.value),
            preshared_key_file: fields::optional_in_state_dir(
                dirs,
                self.identity.preshared_key_file?,
            )?,
            addresses: self.identity.addresses.into_values()?,
            networks,
        })
    }
}

impl PublishDraft {
    fn build(self) -> Result<Publish, Reported> {
        Ok(Publish {
            name: self.name?.value,
            vip: self.vip?.value,
            protocol: self.protocol?.value,
            ports: self.ports.into_values()?,
            allow: self.allow?.build()?,
            source_ip: self.source_ip?.value,
        })
    }
}

impl RoleDraft {
    fn build(self) -> Result<Role, Reported> {
        Ok(Role {
            name: self.name?.value,
            allow: self.allow.into_values()?,
        })
    }
}

impl PeerDraft {
    fn build(self, dirs: &Dirs) -> Result<Peer, Reported> {
        Ok(Peer {
            name: self.identity.name?.value,
            public_key: self.public_key?.value,
            preshared_key_file: fields::optional_in_state_dir(
                dirs,
                self.identity.preshared_key_file?,
            )?,
            addresses: self.identity.addresses.into_values()?,
            role: self.role?.map(|role| role.value),
        })
    }
}

impl AdminDraft {
    fn build(self) -> Result<Admin, Reported> {
        Ok(Admin {
            listen: self.listen?.map(|listen| listen.value),
            tokens: self.tokens?.value,
        })
    }
}
