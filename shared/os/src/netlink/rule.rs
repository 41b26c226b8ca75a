//! Policy routing rules.
use netlink_packet_route::rule::{RuleAction, RuleAttribute, RuleMessage};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage as Message};
use shared::plan::{LiveRule, RoutingRule};

use super::RequestError;
use super::connection::Connection;

/// All rules of both families.
pub(super) async fn all(connection: &mut Connection) -> Result<Vec<LiveRule>, RequestError> {
    let mut rules = Vec::new();
    for family in [AddressFamily::Inet, AddressFamily::Inet6] {
        let mut request = RuleMessage::default();
        request.header.family = family;
        let messages = super::read::dump(connection, Message::GetRule(request)).await?;
        rules.extend(messages.iter().filter_map(|message| parse(message, family)));
    }
    Ok(rules)
}

/// The message that adds or removes a rule.
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

/// A kernel without IPv6 answers with what it has: the family is checked.
fn parse(message: &Message, family: AddressFamily) -> Option<LiveRule> {
    let Message::NewRule(message) = message else {
        return None;
    };
    let header = &message.header;
    if header.family != family {
        return None;
    }
    let mut live = LiveRule {
        rule: RoutingRule {
            ipv6: family == AddressFamily::Inet6,
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
    Some(live)
}
