//! A token server, and a registry that wants its tokens.

use std::collections::HashMap;
use std::fmt::Write as _;
use std::sync::{Arc, Mutex};

use serde_json::json;

use super::{Answer, Seen, Upstream, lock};

/// Gives the challenge lines for a request.
type Challenge = Arc<dyn Fn(&Seen) -> Vec<String> + Send + Sync>;
/// Gives the answer that carries a new token, or refuses.
type Issue = Arc<dyn Fn(&Seen, &str) -> Answer + Send + Sync>;

/// How a registry guards its repositories by tokens. Clones are the same guard.
#[derive(Clone)]
pub struct Guard {
    challenge: Challenge,
    issue: Issue,
    tokens: Arc<Mutex<Tokens>>,
}

#[derive(Default)]
struct Tokens {
    issued: usize,
    /// The scopes of each token that is valid.
    valid: HashMap<String, Vec<String>>,
}

impl Guard {
    /// Tokens from `realm` for `service`, as Docker Hub has them: the challenge names realm, service and scope.
    pub fn bearer(realm: &str, service: &str) -> Self {
        let (realm, service) = (realm.to_owned(), service.to_owned());
        Self::challenging(move |request| {
            let mut challenge = format!(r#"Bearer realm="{realm}",service="{service}""#);
            if let Some((name, _, _)) = request.parts() {
                let _ = write!(challenge, r#",scope="repository:{name}:pull""#);
            }
            vec![challenge]
        })
    }

    /// Tokens for whoever follows these challenge lines.
    pub fn challenging(challenge: impl Fn(&Seen) -> Vec<String> + Send + Sync + 'static) -> Self {
        let issue = |_: &Seen, token: &str| {
            let body = json!({ "token": token, "expires_in": 300 });
            Answer::ok("application/json", super::json(&body))
        };
        Self {
            challenge: Arc::new(challenge),
            issue: Arc::new(issue),
            tokens: Arc::default(),
        }
    }

    /// Lets the token endpoint answer so, given the request and a new token.
    pub fn issuing(
        mut self,
        issue: impl Fn(&Seen, &str) -> Answer + Send + Sync + 'static,
    ) -> Self {
        self.issue = Arc::new(issue);
        self
    }

    /// Guards `registry`, with the token endpoint at `path` of `authority`.
    pub fn stand(&self, registry: &Upstream, authority: &Upstream, path: &str) {
        let guard = self.clone();
        registry.rule(move |request| guard.check(request));
        let (guard, path) = (self.clone(), path.to_owned());
        authority.rule(move |request| (request.path() == path).then(|| guard.token(request)));
    }

    /// Makes every token invalid.
    pub fn revoke(&self) {
        lock(&self.tokens).valid.clear();
    }

    /// How many tokens were asked for.
    pub fn issued(&self) -> usize {
        lock(&self.tokens).issued
    }

    fn token(&self, request: &Seen) -> Answer {
        let mut tokens = lock(&self.tokens);
        tokens.issued += 1;
        let token = format!("token-{}", tokens.issued);
        let scopes = match request.field("scope") {
            Some(scope) => vec![scope],
            None => request.query("scope"),
        };
        tokens.valid.insert(token.clone(), scopes);
        (self.issue)(request, &token)
    }

    /// Nothing when the request may pass, else the 401.
    fn check(&self, request: &Seen) -> Option<Answer> {
        if !request.path().starts_with("/v2/") {
            return None;
        }
        let tokens = lock(&self.tokens);
        let token = request
            .header("Authorization")
            .and_then(|value| value.strip_prefix("Bearer "));
        let scopes = token.and_then(|token| tokens.valid.get(token));
        let allowed = scopes.is_some_and(|scopes| match request.parts() {
            Some((name, _, _)) => {
                let wanted = format!("repository:{name}:pull");
                scopes.contains(&wanted)
            }
            None => true,
        });
        (!allowed).then(|| unauthorized(&(self.challenge)(request)))
    }
}

/// 401 with these challenge lines.
fn unauthorized(challenges: &[String]) -> Answer {
    let answer = Answer::error(401, "UNAUTHORIZED");
    challenges.iter().fold(answer, |answer, challenge| {
        answer.header("WWW-Authenticate", challenge)
    })
}

impl Upstream {
    /// Lets in only who sends this user name and password by Basic, under this challenge.
    pub fn want_basic(&self, challenge: &str, username: &str, password: &str) {
        let challenge = challenge.to_owned();
        let expected = basic(username, password);
        self.rule(move |request| {
            let given = request.header("Authorization");
            let allowed = !request.path().starts_with("/v2/") || given == Some(&expected);
            (!allowed).then(|| unauthorized(std::slice::from_ref(&challenge)))
        });
    }
}

/// `Basic …` (RFC 7617).
pub fn basic(username: &str, password: &str) -> String {
    const LETTERS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = "Basic ".to_owned();
    for three in format!("{username}:{password}").as_bytes().chunks(3) {
        let at = |n: usize| u32::from(three.get(n).copied().unwrap_or(0));
        let bits = at(0) << 16 | at(1) << 8 | at(2);
        for n in 0..4_usize {
            let letter = LETTERS[(bits >> (18 - 6 * n) & 63) as usize];
            text.push(if n > three.len() {
                '='
            } else {
                char::from(letter)
            });
        }
    }
    text
}
