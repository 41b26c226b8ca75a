//! `gateway token`.
use clap::Subcommand;
use hyper::Method;
use jiff::Timestamp;
use shared::api::Page;
use shared::api::scope::Scope;
use shared::api::token::{self, CreateToken, CreatedToken};
use shared_daemon::admin::client::{Call, Client};
use shared_daemon::cli::output::{columns, is_coloured, note, print, print_json, table};
use shared_daemon::error::Failure;

use super::values::Expiry;

/// What can be done with tokens.
#[derive(Debug, Subcommand)]
pub enum Token {
    /// Make a token; it is printed once, alone, on standard output
    Add {
        /// What it is for
        name: String,
        /// What it allows: read, peers:write, admin; once for each
        #[arg(long = "scope", value_name = "SCOPE", required = true)]
        scopes: Vec<Scope>,
        /// When it stops to work: 90d, or 2027-01-31T00:00:00Z [default: never]
        #[arg(long, value_name = "WHEN")]
        expires: Option<Expiry>,
        /// Print the whole answer as JSON
        #[arg(long)]
        json: bool,
    },
    /// List tokens, without their secrets
    List {
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Make a token worthless, at once
    Revoke {
        /// Identifier: the part between `edge_` and the secret, as `list` shows it
        id: String,
    },
}

pub(super) async fn run(command: Token, client: Client) -> Result<(), Failure> {
    match command {
        Token::Add {
            name,
            scopes,
            expires,
            json,
        } => {
            let body = CreateToken {
                name,
                scopes,
                expires_at: expires.map(|end| end.rfc3339(Timestamp::now())),
                expires_in_seconds: None,
            };
            let call = Call::new(Method::POST, "/v1/tokens").json(&body)?;
            let created: CreatedToken = client.send(call).await?.json()?;
            if json {
                return print_json(&created);
            }
            note(&format!(
                "token {} ({}): this is shown once",
                created.token.id, created.token.name
            ));
            print(&format!("{}\n", created.secret.unwrap_or_default()))
        }
        Token::List { json } => {
            let answer = client.get("/v1/tokens").await?;
            let page: Page<token::Token> = answer.json()?;
            if json {
                return print_json(&page);
            }
            print(&listed(&page.items, columns(), is_coloured()))
        }
        Token::Revoke { id } => {
            let path = format!("/v1/tokens/{}", super::peer::encoded(&id));
            client
                .send(Call::new(Method::DELETE, path).if_match("*"))
                .await?;
            note(&format!("token {id} is revoked"));
            Ok(())
        }
    }
}

fn listed(tokens: &[token::Token], columns: u16, coloured: bool) -> String {
    let day = |time: Option<Timestamp>| {
        time.map_or_else(|| "never".to_owned(), |t| t.strftime("%F").to_string())
    };
    let rows = tokens.iter().map(|token| {
        let scopes: Vec<String> = token.scopes.iter().map(ToString::to_string).collect();
        vec![
            token.id.clone(),
            token.name.clone(),
            scopes.join(","),
            day(token.expires_at),
            day(token.last_used_at),
        ]
    });
    let head = ["ID", "NAME", "SCOPES", "EXPIRES", "LAST USED"];
    table(&head, &[1, 2], rows.collect(), columns, coloured)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_fits_80_columns_with_the_longest_names_and_all_scopes() {
        let at = |text: &str| Some(text.parse().unwrap());
        let token = token::Token {
            id: "0123456789abcdef".to_owned(),
            name: "x".repeat(64),
            scopes: vec![Scope::Read, Scope::PeersWrite, Scope::Admin],
            created_at: Timestamp::UNIX_EPOCH,
            created_by: "unix:uid=0,gid=0,pid=1".to_owned(),
            expires_at: at("2027-01-31T00:00:00Z"),
            last_used_at: at("2026-11-23T00:00:00Z"),
        };
        let text = listed(&[token], 80, false);
        assert!(
            text.lines().all(|line| line.chars().count() <= 80),
            "{text}"
        );
        for part in [
            "0123456789abcdef",
            "xxx…",
            "read,peers",
            "2027-01-31",
            "2026-11-23",
        ] {
            assert!(text.contains(part), "{part} is missing in\n{text}");
        }
    }
}
