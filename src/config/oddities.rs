//! Settings that work and are hardly meant so.

use super::{Access, Config};

/// A setting that works and is hardly meant so: what is odd, and what to do.
#[derive(Debug, PartialEq, Eq)]
pub struct Oddity {
    pub finding: String,
    pub remedy: &'static str,
}

/// With fewer characters, a key is soon guessed.
const SHORT_KEY: usize = 8;

impl Config {
    /// What is odd about who may use the server.
    pub fn oddities(&self) -> Vec<Oddity> {
        let mut oddities = Vec::new();
        if let Access::Keys(keys) = &self.access
            && keys.iter().any(|key| key.len() < SHORT_KEY)
        {
            let finding = format!("an API key is shorter than {SHORT_KEY} characters, so it is soon guessed");
            oddities
                .push(Oddity { finding, remedy: "use random keys, such as those of `openssl rand -hex 20`" });
        }
        if self.http.node.is_some() {
            let own = [
                ("signing key", self.signing_key.is_none()),
                ("webhook secret", self.webhook_secret.is_none()),
            ];
            let own: Vec<_> = own.into_iter().filter(|(_, is_own)| *is_own).map(|(name, _)| name).collect();
            if !own.is_empty() {
                let finding = format!(
                    "this node has its own {}, which the other nodes do not know",
                    own.join(" and its own ")
                );
                let remedy = "give all nodes the same by --signing-key-file and --webhook-secret-file";
                oddities.push(Oddity { finding, remedy });
            }
        }
        oddities
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use crate::config::ServeArgs;

    #[derive(clap::Parser)]
    struct Command {
        #[command(flatten)]
        serve: ServeArgs,
    }

    fn findings(flags: &[&str]) -> Vec<String> {
        let all = ["stablehand", "--data-dir", "/nowhere"].iter().chain(flags);
        let config = Command::try_parse_from(all).ok().unwrap().serve.into_config().ok().unwrap();
        config.oddities().into_iter().map(|odd| odd.finding).collect()
    }

    #[test]
    fn short_keys_and_secrets_that_no_other_node_knows_are_odd() {
        assert_eq!(findings(&[]), [""; 0]);
        assert_eq!(findings(&["--api-keys", "12345678"]), [""; 0]);
        let short = "an API key is shorter than 8 characters, so it is soon guessed";
        assert_eq!(findings(&["--api-keys", "12345678,a"]), [short]);
        assert_eq!(
            findings(&["--api-keys", "12345678", "--node", "1"]),
            [
                "this node has its own signing key and its own webhook secret, which the other nodes do not know"
            ]
        );
    }
}
