//! The endpoints that this server has, in the order of the configuration.

use crate::domain::{EndpointId, InputRules};

/// One endpoint.
#[derive(Debug, Clone)]
pub struct ServedEndpoint {
    pub id: EndpointId,
    /// What its model accepts.
    pub rules: InputRules,
    /// The name of its model, such as `tiny-sd`.
    pub model: String,
}

/// All endpoints: at least one.
#[derive(Debug, Clone)]
pub struct Endpoints(Vec<ServedEndpoint>);

impl Endpoints {
    pub fn new(endpoints: Vec<ServedEndpoint>) -> Self {
        Self(endpoints)
    }

    pub fn get(&self, id: &EndpointId) -> Option<&ServedEndpoint> {
        self.0.iter().find(|endpoint| endpoint.id == *id)
    }

    /// The endpoint that clients get who name none: the one with the hosted service's id, otherwise the first.
    pub fn default_one(&self) -> Option<&ServedEndpoint> {
        self.get(&EndpointId::default()).or_else(|| self.0.first())
    }

    /// The endpoint with this id, or else with a model of this name. Case does not matter.
    pub fn named(&self, name: &str) -> Option<&ServedEndpoint> {
        let by_id = self.0.iter().find(|endpoint| endpoint.id.as_str().eq_ignore_ascii_case(name));
        by_id.or_else(|| self.0.iter().find(|endpoint| endpoint.model.eq_ignore_ascii_case(name)))
    }

    pub fn iter(&self) -> impl ExactSizeIterator<Item = &ServedEndpoint> {
        self.0.iter()
    }

    /// Their ids, sorted.
    pub fn names(&self) -> Vec<&str> {
        let mut names: Vec<&str> = self.0.iter().map(|endpoint| endpoint.id.as_str()).collect();
        names.sort_unstable();
        names
    }
}
