//! A running server, for the commands that ask one.

use std::net::SocketAddr;
use std::time::Duration;

use clap::Args;
use serde_json::Value;
use ureq::Agent;
use ureq::tls::TlsConfig;

use super::Failure;
use crate::app::reachable;
use crate::config::{address, server_url};
use crate::fetch::root_certificates;

/// How long a server may take to answer. None of these requests waits for a job.
const PATIENCE: Duration = Duration::from_secs(10);

/// Which server is asked.
#[derive(Debug, Args)]
#[command(mut_args(|arg| arg.hide_env_values(true)))]
#[expect(clippy::doc_markdown, reason = "the help text is for a terminal")]
pub(super) struct AddressArgs {
    /// Address of the server, such as https://draw.example [default: this machine, at --listen]
    #[arg(long, env = "STABLEHAND_URL", value_name = "URL", value_parser = server_url)]
    url: Option<String>,
    /// Address and port that the server on this machine listens on
    #[arg(long, env = "STABLEHAND_LISTEN", value_name = "ADDRESS", default_value = "127.0.0.1:8000",
        value_parser = address)]
    listen: SocketAddr,
}

/// Which server is asked, and with what key.
#[derive(Debug, Args)]
pub(super) struct ServerArgs {
    #[command(flatten)]
    address: AddressArgs,
    /// API key of the server; safer in the environment, because `ps` shows flags
    #[arg(long, env = "STABLEHAND_API_KEY", value_name = "KEY", hide_env_values = true)]
    key: Option<String>,
}

/// Asks one server.
pub(super) struct Server {
    base: String,
    authorization: Option<String>,
    agent: Agent,
}

impl AddressArgs {
    pub(super) fn server(&self) -> Result<Server, Failure> {
        let roots = root_certificates().map_err(|error| Failure::Other(error.to_string()))?;
        let config = Agent::config_builder()
            .http_status_as_error(false)
            .timeout_global(Some(PATIENCE))
            .max_redirects(0)
            // The key goes to this server only.
            .proxy(None)
            .tls_config(TlsConfig::builder().root_certs(roots).build())
            .build();
        let base = self.url.clone().unwrap_or_else(|| format!("http://{}", reachable(self.listen)));
        Ok(Server { base, authorization: None, agent: config.into() })
    }
}

impl ServerArgs {
    pub(super) fn server(&self) -> Result<Server, Failure> {
        let server = self.address.server()?;
        Ok(Server { authorization: self.key.as_ref().map(|key| format!("Bearer {key}")), ..server })
    }
}

impl Server {
    pub(super) fn base(&self) -> &str {
        &self.base
    }

    /// What the server answers on `path`, which begins with a slash: its status code and its body.
    pub(super) fn get(&self, path: &str) -> Result<(u16, Value), Failure> {
        let request = self.agent.get(format!("{}{path}", self.base));
        self.read(self.authorized(request).call())
    }

    pub(super) fn post(&self, path: &str) -> Result<(u16, Value), Failure> {
        let request = self.agent.post(format!("{}{path}", self.base));
        self.read(self.authorized(request).send_empty())
    }

    fn authorized<B>(&self, request: ureq::RequestBuilder<B>) -> ureq::RequestBuilder<B> {
        match &self.authorization {
            Some(authorization) => request.header("authorization", authorization),
            None => request,
        }
    }

    fn read(
        &self,
        answer: Result<ureq::http::Response<ureq::Body>, ureq::Error>,
    ) -> Result<(u16, Value), Failure> {
        let unreached =
            |error| Failure::Other(format!("the server at {} cannot be reached: {error}", self.base));
        let mut answer = answer.map_err(unreached)?;
        let status = answer.status().as_u16();
        let text = answer.body_mut().read_to_string().map_err(unreached)?;
        let body = serde_json::from_str(&text).map_err(|_| {
            Failure::Other(format!("{} is no stablehand: it answered {status} without JSON", self.base))
        })?;
        Ok((status, body))
    }
}

/// The body of an answer, or the server's own sentence why there is none.
pub(super) fn granted((status, body): (u16, Value)) -> Result<Value, Failure> {
    match status {
        200 => Ok(body),
        401 => Err(Failure::Usage(
            "the server wants a right API key: give it with --key or STABLEHAND_API_KEY".to_owned(),
        )),
        status => Err(Failure::Other(match body["error"].as_str() {
            Some(sentence) => format!("the server refused: {}", printable(sentence)),
            None => format!("the server answered with status {status}"),
        })),
    }
}

/// Text from elsewhere, without what would move a terminal's cursor or change its colours.
pub(super) fn printable(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_refusal_is_the_servers_own_sentence() {
        let sentence = |status, body| granted((status, body)).unwrap_err().to_string();
        assert_eq!(
            sentence(404, json!({"error": "No such job.\u{1b}[2J"})),
            "the server refused: No such job. [2J"
        );
        assert_eq!(sentence(502, json!({})), "the server answered with status 502");
        assert!(sentence(401, json!({"error": "No valid API key"})).contains("STABLEHAND_API_KEY"));
        assert_eq!(granted((200, json!({"id": 1}))).unwrap(), json!({"id": 1}));
    }
}
