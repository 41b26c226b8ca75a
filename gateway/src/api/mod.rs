//! The gateway's own routes: peers, tokens, invitations, events, the audit log, and what the file says. Handlers read the view or ask the
//! worker; they know neither kernel nor store.
mod answer;
mod audit;
mod events;
mod invites;
mod peers;
mod policy;
mod tokens;

use shared_daemon::admin::actor::Actor;
use shared_daemon::admin::gate::Authenticator;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::peers::{Handle, tokens as token_records};
use crate::store::Store;

/// All of them. The handle is the only state.
pub fn router<S: Store>(handle: Handle<S>) -> OpenApiRouter {
    OpenApiRouter::new()
        .routes(routes!(peers::list, peers::create))
        .routes(routes!(peers::show, peers::patch, peers::delete))
        .routes(routes!(peers::rotate))
        .routes(routes!(peers::reset_usage))
        .routes(routes!(peers::config, peers::fill_config))
        .routes(routes!(peers::qr))
        .routes(routes!(tokens::list, tokens::create))
        .routes(routes!(tokens::show, tokens::delete))
        .routes(routes!(invites::list, invites::create))
        .routes(routes!(invites::show, invites::delete))
        .routes(routes!(audit::list))
        .routes(routes!(events::follow))
        .routes(routes!(policy::roles))
        .routes(routes!(policy::lan_servers))
        .routes(routes!(policy::publishes))
        .with_state(handle)
}

impl<S: Store> Authenticator for Handle<S> {
    fn authenticate(&self, id: &str, secret: &str) -> Option<Actor> {
        let now = jiff::Timestamp::now();
        let view = self.shared.view();
        let token = view.tokens.get(id)?;
        token_records::accepts(token, secret, now).then(|| {
            self.shared.note_token_use(id, now);
            Actor::Token {
                id: id.to_owned(),
                scopes: token.scopes.clone(),
            }
        })
    }
}

#[cfg(test)]
mod tests;
