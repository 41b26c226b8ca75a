//! The whole cluster of the documentation, with the programs that run there.
//!
//! ```text
//!  lan_host  virbr-infra 10.17.3.1      virbr-nodes 10.17.4.1          virbr-vip 10.17.5.1
//!                 │                          │                              │
//!             lb1 .12, lb2 .13       master1-3 .21-.23 (TLS 6443)       lb1 .12, lb2 .13
//!                                    worker1 .24 (HTTP 80, HTTPS 443)   VIPs .10 (API), .30 (ingress), fd17:5::30
//! ```
//!
//! On the load balancers: keepalived moves the VIPs by VRRP; `HAProxy` hands 6443 to the masters and 80/443 with the PROXY
//! protocol to the worker. Masters and worker are nginx.
use std::ops::Deref;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context as _, Result};

use super::World;
use super::addresses::{API_PORT, API_VIP, INGRESS_VIP, VPS};
use crate::daemon::Daemon;
use crate::expect::{eventually, holds};
use crate::node::Node;
use crate::topology::Topology;

/// How long the cluster may take until both VIPs answer on the LAN.
const READY_TIMEOUT: Duration = Duration::from_secs(15);

/// Name of the web site behind the ingress VIP.
pub const SITE: &str = "www.example.org";

/// How long a request waits before the service counts as unreachable.
const CURL_SECONDS: &str = "3";

/// A load balancer of the cluster.
#[derive(Debug)]
pub struct LoadBalancer {
    /// The host.
    pub node: Node,
    daemons: Vec<Daemon>,
}

impl LoadBalancer {
    /// Whether it holds the VIPs now.
    pub fn is_active(&self) -> Result<bool> {
        let addresses = self
            .node
            .run(&["ip", "-br", "addr", "show", "dev", "vip"])?;
        Ok(addresses.contains(&format!("{INGRESS_VIP}/")))
    }

    /// What `HAProxy` wrote: one line for each connection, with the caller's address.
    pub fn haproxy_log(&self) -> Result<String> {
        let path = self.node.dir().join("haproxy.log");
        std::fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))
    }

    /// Die as in a power cut: every process killed, every cable dead.
    pub fn cut_power(&mut self) -> Result<()> {
        self.node.ip("link set infra down\nlink set vip down\n")?;
        self.daemons.clear();
        Ok(())
    }
}

/// See the [module](self).
#[derive(Debug)]
pub struct ReferenceWorld {
    /// `lb1`, which has the higher priority, and `lb2`.
    pub load_balancers: [LoadBalancer; 2],
    /// Web server behind the ingress VIP.
    pub worker: Node,
    /// Certificate of the API, for `--cacert`.
    pub api_certificate: PathBuf,
    /// Certificate of the web site `www.example.org`.
    pub site_certificate: PathBuf,
    servers: Vec<Daemon>,
    world: World,
}

impl ReferenceWorld {
    /// Build it and wait until both VIPs answer on the LAN; nothing of the product runs yet.
    pub fn new(mut topology: Topology) -> Result<Self> {
        let [lb1, lb2, master1, master2, master3, worker] =
            topology.add_nodes(["lb1", "lb2", "master1", "master2", "master3", "worker1"])?;
        let world = World::new(topology)?;
        let lan_host = &world.lan_host;
        lan_host.ip("
            link add virbr-infra type bridge
            link add virbr-nodes type bridge
            link add virbr-vip type bridge
        ")?;
        world.topology.connect(&[
            ((lan_host, "lb1-infra"), (&lb1, "infra")),
            ((lan_host, "lb2-infra"), (&lb2, "infra")),
            ((lan_host, "lb1-vip"), (&lb1, "vip")),
            ((lan_host, "lb2-vip"), (&lb2, "vip")),
            ((lan_host, "master1"), (&master1, "eth0")),
            ((lan_host, "master2"), (&master2, "eth0")),
            ((lan_host, "master3"), (&master3, "eth0")),
            ((lan_host, "worker1"), (&worker, "eth0")),
        ])?;
        lan_host.ip("
            link set lb1-infra master virbr-infra
            link set lb2-infra master virbr-infra
            link set lb1-vip master virbr-vip
            link set lb2-vip master virbr-vip
            link set master1 master virbr-nodes
            link set master2 master virbr-nodes
            link set master3 master virbr-nodes
            link set worker1 master virbr-nodes
            addr add 10.17.3.1/24 dev virbr-infra
            addr add 10.17.4.1/24 dev virbr-nodes
            addr add 10.17.5.1/24 dev virbr-vip
            addr add fd17:5::1/64 dev virbr-vip nodad
            link set virbr-infra up
            link set virbr-nodes up
            link set virbr-vip up
        ")?;
        let api_certificate = certificate(lan_host, "api", &format!("IP:{API_VIP}"))?;
        let site_certificate = certificate(lan_host, "site", &format!("DNS:{SITE}"))?;

        let mut servers = Vec::new();
        for (node, address) in [
            (&master1, "10.17.4.21"),
            (&master2, "10.17.4.22"),
            (&master3, "10.17.4.23"),
        ] {
            on_node_network(node, address)?;
            servers.push(nginx(node, &master_site(node, address, &api_certificate))?);
        }
        on_node_network(&worker, "10.17.4.24")?;
        servers.push(nginx(
            &worker,
            &worker_site("10.17.4.24", &site_certificate),
        )?);

        let load_balancers = [load_balancer(lb1, 12, 150)?, load_balancer(lb2, 13, 100)?];
        let reference = Self {
            load_balancers,
            worker,
            api_certificate,
            site_certificate,
            servers,
            world,
        };
        reference.wait_until_ready()?;
        Ok(reference)
    }

    fn wait_until_ready(&self) -> Result<()> {
        let health = format!("https://{API_VIP}:6443/healthz");
        let site = format!("http://{INGRESS_VIP}/");
        for url in [&health, &site] {
            eventually(
                READY_TIMEOUT,
                &format!("answer from {url} on the LAN"),
                || {
                    self.lan_host
                        .run(&["curl", "-skf", "--max-time", "1", url])
                        .map(drop)
                },
            )?;
        }
        eventually(
            READY_TIMEOUT,
            "lb1 is the active load balancer, and it alone",
            || {
                let [first, second] = &self.load_balancers;
                holds(first.is_active()? && !second.is_active()?, || {
                    "not yet".to_owned()
                })
            },
        )
    }

    /// Fetch a page from `node` with curl: the site's name leads to the VPS, its certificate is verified. To its IPv4 address
    /// alone: which family comes first where there are two is different from curl to curl.
    pub fn visit(&self, node: &Node, url: &str) -> Result<String> {
        let certificate = self.site_certificate.display().to_string();
        let resolve = format!("{SITE}:443:{VPS}");
        let trust = ["--cacert", &certificate, "--resolve", &resolve, url];
        curl(node, &trust)
    }

    /// Ask the Kubernetes API on its VIP how it is, with its certificate verified.
    pub fn ask_api(&self, node: &Node) -> Result<String> {
        let certificate = self.api_certificate.display().to_string();
        let url = format!("https://{API_VIP}:{API_PORT}/healthz");
        curl(node, &["--cacert", &certificate, &url])
    }

    /// What the web server wrote: one line for each request, with the visitor's address.
    pub fn web_log(&self) -> Result<String> {
        let path = self.worker.dir().join("nginx.log");
        std::fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))
    }

    /// Leave namespaces and programs in place when this is dropped.
    pub fn keep(&mut self) {
        self.world.topology.keep();
        let balancers = self
            .load_balancers
            .iter_mut()
            .flat_map(|balancer| &mut balancer.daemons);
        for daemon in self.servers.iter_mut().chain(balancers) {
            daemon.release();
        }
    }
}

impl Deref for ReferenceWorld {
    type Target = World;

    fn deref(&self) -> &World {
        &self.world
    }
}

/// Run curl as a script does: no progress, an HTTP error is an error, at most [`CURL_SECONDS`].
fn curl(node: &Node, arguments: &[&str]) -> Result<String> {
    let mut command = vec!["curl", "-sSf", "--max-time", CURL_SECONDS];
    command.extend(arguments);
    node.run(&command)
}

/// A host of 10.17.4.0/24.
fn on_node_network(node: &Node, address: &str) -> Result<()> {
    node.ip(&format!(
        "addr add {address}/24 dev eth0\nroute add default via 10.17.4.1\n"
    ))
}

/// A self-signed certificate and its key, `NAME.crt` and `NAME.key`; returns the path of the certificate.
fn certificate(node: &Node, name: &str, subject: &str) -> Result<PathBuf> {
    let path = node.dir().join(format!("{name}.crt"));
    let (key, crt) = (path.with_extension("key"), path.display().to_string());
    node.run(&[
        "openssl",
        "req",
        "-x509",
        "-newkey",
        "ec",
        "-pkeyopt",
        "ec_paramgen_curve:prime256v1",
        "-nodes",
        "-days",
        "2",
        "-subj",
        &format!("/CN={name}"),
        "-addext",
        &format!("subjectAltName={subject}"),
        "-keyout",
        &key.display().to_string(),
        "-out",
        &crt,
    ])?;
    Ok(path)
}

/// Start nginx as one process with these `server` blocks.
fn nginx(node: &Node, servers: &str) -> Result<Daemon> {
    let dir = node.dir().display();
    let config = node.write(
        "nginx.conf",
        &format!(
            r"daemon off;
master_process off;
pid {dir}/nginx.pid;
error_log stderr;
events {{}}
http {{
    log_format caller '$remote_addr $proxy_protocol_addr $scheme $request_uri $status';
    access_log /dev/stdout caller;
    client_body_temp_path {dir}/body;
    proxy_temp_path {dir}/proxy;
    fastcgi_temp_path {dir}/fastcgi;
    uwsgi_temp_path {dir}/uwsgi;
    scgi_temp_path {dir}/scgi;
{servers}
}}
"
        ),
    )?;
    Daemon::start(
        node,
        "nginx",
        &["nginx", "-e", "stderr", "-c", &config.display().to_string()],
    )
}

fn master_site(node: &Node, address: &str, certificate: &std::path::Path) -> String {
    format!(
        r#"    server {{
        listen {address}:6443 ssl;
        ssl_certificate {};
        ssl_certificate_key {};
        location = /healthz {{ return 200 "ok from {}\n"; }}
    }}"#,
        certificate.display(),
        certificate.with_extension("key").display(),
        node.name()
    )
}

fn worker_site(address: &str, certificate: &std::path::Path) -> String {
    format!(
        r#"    server {{
        listen {address}:80 proxy_protocol;
        listen {address}:443 ssl proxy_protocol;
        ssl_certificate {};
        ssl_certificate_key {};
        location / {{ return 200 "you are $proxy_protocol_addr\n"; }}
    }}"#,
        certificate.display(),
        certificate.with_extension("key").display()
    )
}

/// A load balancer with host number `host` in both of its networks.
fn load_balancer(node: Node, host: u8, priority: u8) -> Result<LoadBalancer> {
    node.ip(&format!(
        "addr add 10.17.3.{host}/24 dev infra
         addr add 10.17.5.{host}/24 dev vip
         addr add fd17:5::{host}/64 dev vip nodad
         route add default via 10.17.5.1
         route add default via fd17:5::1"
    ))?;
    // HAProxy listens on the VIPs also while the other one holds them.
    node.set_sysctl("net/ipv4/ip_nonlocal_bind", "1")?;
    node.set_sysctl("net/ipv6/ip_nonlocal_bind", "1")?;
    let haproxy = node.write("haproxy.cfg", HAPROXY)?;
    let keepalived = node.write("keepalived.conf", &keepalived_conf(node.name(), priority))?;
    let daemons = vec![
        Daemon::start(
            &node,
            "haproxy",
            &["haproxy", "-db", "-f", &haproxy.display().to_string()],
        )?,
        Daemon::start(
            &node,
            "keepalived",
            &[
                "keepalived",
                "-n",
                "-P",
                "-l",
                "-f",
                &keepalived.display().to_string(),
            ],
        )?,
        Daemon::start(&node, "iperf3", &["iperf3", "-s"])?,
        Daemon::start(
            &node,
            "udp",
            // The question is read first: a program that has ended before socat hands it over takes the answer with it.
            &[
                "socat",
                "UDP4-RECVFROM:3478,bind=10.17.5.30,fork",
                "SYSTEM:head -c 1 >/dev/null; echo you are $SOCAT_PEERADDR\\:$SOCAT_PEERPORT",
            ],
        )?,
    ];
    Ok(LoadBalancer { node, daemons })
}

fn keepalived_conf(name: &str, priority: u8) -> String {
    format!(
        "global_defs {{
    router_id {name}
    vrrp_version 3
    vrrp_garp_master_delay 1
}}
vrrp_instance vips {{
    state BACKUP
    interface vip
    virtual_router_id 30
    priority {priority}
    advert_int 0.2
    virtual_ipaddress {{
        10.17.5.10/24
        10.17.5.30/24
    }}
    virtual_ipaddress_excluded {{
        fd17:5::30/64
    }}
}}
"
    )
}

const HAPROXY: &str = "global
    log stdout format raw local0
defaults
    mode tcp
    log global
    log-format \"%ci %b %s\"
    timeout connect 2s
    timeout client 900s
    timeout server 900s
frontend api
    bind 10.17.5.10:6443
    default_backend masters
backend masters
    balance roundrobin
    server master1 10.17.4.21:6443 check
    server master2 10.17.4.22:6443 check
    server master3 10.17.4.23:6443 check
frontend http
    bind 10.17.5.30:80
    bind [fd17:5::30]:80
    default_backend http
backend http
    server worker1 10.17.4.24:80 check send-proxy-v2 check-send-proxy
frontend https
    bind 10.17.5.30:443
    bind [fd17:5::30]:443
    default_backend https
backend https
    server worker1 10.17.4.24:443 check send-proxy-v2 check-send-proxy
";
