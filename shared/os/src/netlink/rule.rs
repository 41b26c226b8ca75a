//! Policy routing rules.
use netlink_packet_route::rule::{RuleAction, RuleAttribute, RuleMessage};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage as Message};
use shared::plan::{LiveRule, RoutingRule};

use super::RequestError;
use super::connection::Connection;

/// All rules of both families.
pub(super) async fn all(connection: &mut Connection) -> Result<Vec<LiveRule>, RequestError> {
    let messages = messages(connection).await?;
    Ok(messages.iter().map(parse).collect())
}

/// The message with which the kernel lists this rule: only it names all selectors, and a request to remove a rule means
/// the first one that matches every selector it names.
pub(super) async fn listed(
    connection: &mut Connection,
    live: LiveRule,
) -> Result<Option<RuleMessage>, RequestError> {
    let messages = messages(connection).await?;
    Ok(messages.into_iter().find(|message| parse(message) == live))
}

async fn messages(connection: &mut Connection) -> Result<Vec<RuleMessage>, RequestError> {
    let mut rules = Vec::new();
    for family in [AddressFamily::Inet, AddressFamily::Inet6] {
        let mut request = RuleMessage::default();
        request.header.family = family;
        for message in super::read::dump(connection, Message::GetRule(request)).await? {
            match message {
                // A kernel without IPv6 answers with what it has.
                Message::NewRule(rule) if rule.header.family == family => rules.push(rule),
                _ => {}
            }
        }
    }
    Ok(rules)
}

/// The message that adds a rule.
pub(super) fn message(rule: RoutingRule, protocol: u8) -> RuleMessage {
    let mut message = RuleMessage::default();
    message.header.family = if rule.ipv6 {
        AddressFamily::Inet6
    } else {
        AddressFamily::Inet
    };
    message.header.action = RuleAction::ToTable;
    message.attributes = vec![
        RuleAttribute::Priority(rule.priority),
        RuleAttribute::Table(rule.table),
        RuleAttribute::Protocol(protocol.into()),
    ];
    if (rule.mark, rule.mask) != (0, 0) {
        message.attributes.push(RuleAttribute::FwMark(rule.mark));
        message.attributes.push(RuleAttribute::FwMask(rule.mask));
    }
    message
}

fn parse(message: &RuleMessage) -> LiveRule {
    let header = &message.header;
    let mut live = LiveRule {
        rule: RoutingRule {
            ipv6: header.family == AddressFamily::Inet6,
            priority: 0,
            mark: 0,
            mask: 0,
            table: u32::from(header.table),
        },
        protocol: 0,
        plain: header.action == RuleAction::ToTable
            && header.flags.is_empty()
            && (header.src_len, header.dst_len, header.tos) == (0, 0, 0),
    };
    for attribute in &message.attributes {
        match attribute {
            RuleAttribute::Priority(priority) => live.rule.priority = *priority,
            RuleAttribute::FwMark(mark) => live.rule.mark = *mark,
            RuleAttribute::FwMask(mask) => live.rule.mask = *mask,
            RuleAttribute::Table(table) => live.rule.table = *table,
            RuleAttribute::Protocol(protocol) => live.protocol = (*protocol).into(),
            RuleAttribute::SuppressPrefixLen(u32::MAX) => {} // none, but always listed
            _ => live.plain = false,
        }
    }
    live
}
