//! `lan-server.toml` as written: every field read on its own, later checked against the others.
use std::net::IpAddr;

use ipnetwork::IpNetwork;

use super::{Access, Gateway, LanServer, Publish};
use crate::config::common::{Endpoint, PortRange, Protocol, Service, SourceIp};
use crate::config::document::{Table, TableKeys};
use crate::config::fields::{self, Dirs, IdentityDraft, TunnelDefaults, TunnelDraft};
use crate::config::policy_test::{self, TestDraft};
use crate::config::refresh::{self, RefreshDraft};
use crate::config::report::{Field, List, Located, Reported};
use crate::config::sources::{self, Sets, SourcesDraft};
use crate::config::value::{PortError, Quoted};
use crate::model::PublicKey;

/// Every key of `lan-server.toml`.
pub const KEYS: &[TableKeys] = &[
    TableKeys {
        table: "",
        repeated: false,
        keys: &[
            "state_dir",
            "runtime_dir",
            "tunnel",
            "gateway",
            "publish",
            "access",
            "sets",
            "cloudflare",
            "test",
        ],
    },
    TableKeys {
        table: "tunnel",
        repeated: false,
        keys: &fields::TUNNEL_KEYS,
    },
    TableKeys {
        table: "gateway",
        repeated: true,
        keys: &[
            "name",
            "endpoint",
            "public_key",
            "preshared_key_file",
            "address",
            "network",
            "persistent_keepalive",
        ],
    },
    TableKeys {
        table: "publish",
        repeated: true,
        keys: &["name", "vip", "protocol", "ports", "from", "source_ip"],
    },
    TableKeys {
        table: "access",
        repeated: true,
        keys: &["to", "source_ip"],
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
        table: "test",
        repeated: true,
        keys: &policy_test::KEYS,
    },
];

const TUNNEL: TunnelDefaults = TunnelDefaults {
    address: "\"10.17.0.2/32\"",
    listen_port: 0,
    least_listen_port: 0,
    private_key_file: "lan-server.key",
};

/// Seconds; less than the 30 s for which many NATs keep an idle UDP mapping (RFC 4787 §4.3 asks for 2 minutes).
const DEFAULT_PERSISTENT_KEEPALIVE: u16 = 25;

/// The file as far as it could be read.
#[derive(Debug)]
pub(super) struct Draft {
    dirs: Dirs,
    pub(super) tunnel: Result<TunnelDraft, Reported>,
    pub(super) gateways: List<GatewayDraft>,
    pub(super) publishes: List<PublishDraft>,
    pub(super) access: List<AccessDraft>,
    pub(super) sets: Sets,
    pub(super) refresh: RefreshDraft,
    pub(super) tests: List<TestDraft>,
}

#[derive(Debug)]
pub(super) struct GatewayDraft {
    pub(super) at: usize,
    pub(super) identity: IdentityDraft,
    pub(super) public_key: Field<PublicKey>,
    pub(super) endpoint: Field<Endpoint>,
    pub(super) networks: List<Located<IpNetwork>>,
    pub(super) persistent_keepalive_secs: Field<u16>,
}

#[derive(Debug)]
pub(super) struct PublishDraft {
    pub(super) label: String,
    pub(super) name: Field<String>,
    pub(super) vip: Field<IpAddr>,
    pub(super) protocol: Field<Protocol>,
    pub(super) ports: List<Located<PortRange>>,
    pub(super) from: Result<SourcesDraft, Reported>,
    pub(super) source_ip: Field<SourceIp>,
}

#[derive(Debug)]
pub(super) struct AccessDraft {
    pub(super) label: String,
    pub(super) to: List<Located<Service>>,
    pub(super) source_ip: Field<SourceIp>,
}

pub(super) fn read(root: &Table<'_>) -> Draft {
    Draft {
        dirs: fields::dirs(root),
        tunnel: root
            .table("tunnel")
            .map(|table| fields::tunnel(&table, &TUNNEL)),
        gateways: root.tables("gateway").map(|table| gateway(&table)),
        publishes: root.tables("publish").map(|table| publish(&table)),
        access: root.tables("access").map(|table| access(&table)),
        sets: sources::sets(root),
        refresh: refresh::refresh(root),
        tests: policy_test::tests(root),
    }
}

fn gateway(table: &Table<'_>) -> GatewayDraft {
    GatewayDraft {
        at: table.at(),
        identity: fields::identity(table, "\"10.17.0.1\""),
        public_key: fields::public_key(table),
        endpoint: fields::endpoint(table),
        networks: fields::tunnel_networks(table),
        persistent_keepalive_secs: table.get_or(
            "persistent_keepalive",
            DEFAULT_PERSISTENT_KEEPALIVE,
            |value| value.integer_in(0..=i64::from(u16::MAX)),
        ),
    }
}

fn publish(table: &Table<'_>) -> PublishDraft {
    PublishDraft {
        label: table.label().to_owned(),
        name: fields::name(table),
        vip: fields::vip(table),
        protocol: fields::protocol(table),
        ports: fields::ports(table, vip_ports),
        from: sources::sources(table, "from"),
        source_ip: fields::source_ip(table, SourceIp::Preserve),
    }
}

/// Ports of the VIP; the gateway has mapped them already.
fn vip_ports(text: &str) -> Result<PortRange, PortError> {
    match text.split_once(':') {
        Some(_) => Err(PortError::MappedHere(Quoted::text(text))),
        None => text.parse(),
    }
}

fn access(table: &Table<'_>) -> AccessDraft {
    AccessDraft {
        label: table.label().to_owned(),
        to: fields::services(table, "to"),
        source_ip: fields::source_ip(table, SourceIp::Masquerade),
    }
}

impl Draft {
    /// The checked form, if every field could be read.
    pub(super) fn build(self) -> Result<LanServer, Reported> {
        let Self {
            dirs,
            tunnel,
            gateways,
            publishes,
            access,
            sets,
            refresh,
            tests,
        } = self;
        let publishes = publishes.try_map(PublishDraft::build)?;
        Ok(LanServer {
            tunnel: tunnel?.build(&dirs)?,
            gateways: gateways.try_map(|gateway| gateway.build(&dirs))?,
            tests: tests.try_map(|test| test.build(&sets))?,
            refresh: refresh.build(&sets)?,
            sets: sets.build(
                &publishes
                    .iter()
                    .map(|publish| &publish.from)
                    .collect::<Vec<_>>(),
            )?,
            publishes,
            access: access.try_map(AccessDraft::build)?,
            state_dir: dirs.state?.value,
            runtime_dir: dirs.runtime?.value,
        })
    }
}

impl GatewayDraft {
    fn build(self, dirs: &Dirs) -> Result<Gateway, Reported> {
        Ok(Gateway {
            name: self.identity.name?.value,
            endpoint: self.endpoint?.value,
            public_key: self.public_key?.value,
            preshared_key_file: fields::optional_in_state_dir(
                dirs,
                self.identity.preshared_key_file?,
            )?,
            addresses: self.identity.addresses.into_values()?,
            networks: self.networks.into_values()?,
            persistent_keepalive_secs: self.persistent_keepalive_secs?.value,
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
            from: self.from?.build()?,
            source_ip: self.source_ip?.value,
        })
    }
}

impl AccessDraft {
    fn build(self) -> Result<Access, Reported> {
        Ok(Access {
            to: self.to.into_values()?,
            source_ip: self.source_ip?.value,
        })
    }
}
