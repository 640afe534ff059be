//! The surfaces: APIs of other programs, which the server speaks beside its own. Which are on, and which need no key.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use ipnet::IpNet;

/// One surface. Each has a folder of its own below `http`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Surface {
    OpenAi,
    HuggingFace,
}

impl Surface {
    pub const ALL: [Self; 2] = [Self::OpenAi, Self::HuggingFace];

    /// The word for it in settings and metrics.
    pub fn name(self) -> &'static str {
        match self {
            Self::OpenAi => "openai",
            Self::HuggingFace => "huggingface",
        }
    }

    /// Its name for people.
    pub fn title(self) -> &'static str {
        match self {
            Self::OpenAi => "OpenAI Images API",
            Self::HuggingFace => "Hugging Face inference API",
        }
    }

    /// What follows the server's address in the URL that people give to a client.
    pub fn path(self) -> &'static str {
        match self {
            Self::OpenAi => "/v1",
            Self::HuggingFace => "/huggingface",
        }
    }
}

impl fmt::Display for Surface {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Surface {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        Self::ALL.into_iter().find(|surface| surface.name() == text).ok_or_else(|| {
            let known = Self::ALL.map(Self::name).join(", ");
            format!("unknown surface {text}; choose from {known}")
        })
    }
}

/// The surfaces that are served, read from `all`, `none` or a list such as `openai`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Surfaces(Vec<Surface>);

impl Surfaces {
    pub fn contains(&self, surface: Surface) -> bool {
        self.0.contains(&surface)
    }

    pub fn iter(&self) -> impl Iterator<Item = Surface> {
        self.0.iter().copied()
    }
}

impl Default for Surfaces {
    fn default() -> Self {
        Self(Surface::ALL.to_vec())
    }
}

impl FromStr for Surfaces {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text.trim() {
            "all" => Ok(Self::default()),
            "none" => Ok(Self(Vec::new())),
            list => list.split(',').map(|name| name.trim().parse()).collect::<Result<_, _>>().map(Self),
        }
    }
}

/// The surfaces that need no key, each from this machine and perhaps from networks. It is read from a list such as
/// `openai,openai@192.168.1.0/24`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct OpenSurfaces(Vec<(Surface, Option<IpNet>)>);

impl OpenSurfaces {
    /// Whether a client at this address needs no key for the surface.
    pub fn admit(&self, surface: Surface, address: IpAddr) -> bool {
        let address = address.to_canonical();
        self.0.iter().filter(|(open, _)| *open == surface).any(|(_, network)| {
            address.is_loopback() || network.is_some_and(|network| network.contains(&address))
        })
    }

    /// Whether it needs no key from some addresses.
    pub fn contains(&self, surface: Surface) -> bool {
        self.iter().any(|open| open == surface)
    }

    pub fn iter(&self) -> impl Iterator<Item = Surface> {
        self.0.iter().map(|(surface, _)| *surface)
    }
}

impl FromStr for OpenSurfaces {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let entries = text.split(',').map(str::trim).filter(|entry| !entry.is_empty());
        let open = entries.map(|entry| match entry.split_once('@') {
            None => Ok((entry.parse()?, None)),
            Some((surface, network)) => {
                let network = network
                    .parse::<IpNet>()
                    .or_else(|_| network.parse::<IpAddr>().map(IpNet::from))
                    .map_err(|_| format!("{network} is not a network such as 192.168.1.0/24"))?;
                Ok((surface.parse()?, Some(network)))
            }
        });
        open.collect::<Result<_, String>>().map(Self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn admits(open: &str, address: &str) -> bool {
        open.parse::<OpenSurfaces>().unwrap().admit(Surface::OpenAi, address.parse().unwrap())
    }

    #[test]
    fn an_open_surface_admits_this_machine_and_the_networks_that_are_named() {
        for address in ["127.0.0.1", "::1", "::ffff:127.0.0.1"] {
            assert!(admits("openai", address), "{address}");
            assert!(!admits("", address), "{address}");
        }
        assert!(!admits("openai", "192.168.1.7"));
        for open in
            ["openai@192.168.1.0/24", "openai, openai@192.168.1.7", "openai@10.0.0.0/8,openai@192.168.0.0/16"]
        {
            assert!(admits(open, "192.168.1.7") && admits(open, "::ffff:192.168.1.7"), "{open}");
            assert!(admits(open, "127.0.0.1") && !admits(open, "192.169.1.7"), "{open}");
        }
    }

    #[test]
    fn a_setting_that_names_no_surface_is_refused() {
        assert_eq!("all".parse(), Ok(Surfaces::default()));
        assert_eq!("none".parse::<Surfaces>().unwrap().iter().count(), 0);
        assert_eq!("openai,huggingface".parse(), Ok(Surfaces::default()));
        assert_eq!(
            "open-ai".parse::<Surfaces>().unwrap_err(),
            "unknown surface open-ai; choose from openai, huggingface"
        );
        assert!("".parse::<Surfaces>().is_err() && "openai,".parse::<Surfaces>().is_err());
        assert!("all".parse::<OpenSurfaces>().is_err());
        let error = "openai@lan".parse::<OpenSurfaces>().unwrap_err();
        assert_eq!(error, "lan is not a network such as 192.168.1.0/24");
    }
}
