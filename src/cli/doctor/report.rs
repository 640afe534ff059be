//! The report of all checks, as lines for people and as JSON for programs.

use std::fmt::{self, Write as _};

use serde::Serialize;

use crate::cli::paragraph::wrap;

/// The result of one check.
#[derive(Debug, Serialize)]
pub(super) struct Check {
    pub name: &'static str,
    pub verdict: Verdict,
    /// What was found: a sentence without its full stop.
    pub finding: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub remedy: Option<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Verdict {
    Ok,
    /// Nothing is wrong, but the user should know.
    Note,
    /// The server works, but not as well as it could.
    Warning,
    /// The server would not start, or not draw.
    Fail,
}

/// All results.
#[derive(Debug, Serialize)]
pub(super) struct Report {
    pub version: &'static str,
    pub checks: Vec<Check>,
    pub devices: Vec<DeviceTaken>,
    /// Whether the server would start and draw.
    pub works: bool,
}

/// The device that a value of `--device` selects, and why.
#[derive(Debug, Serialize)]
pub(super) struct DeviceTaken {
    pub asked: String,
    /// The selected device. `None` if no device can be used.
    pub takes: Option<String>,
    pub because: String,
}

/// The column in which findings begin.
const INDENT: usize = 19;

impl Check {
    pub fn ok(name: &'static str, finding: impl Into<String>) -> Self {
        Self { name, verdict: Verdict::Ok, finding: finding.into(), remedy: None }
    }

    pub fn note(name: &'static str, finding: impl Into<String>) -> Self {
        Self { verdict: Verdict::Note, ..Self::ok(name, finding) }
    }

    pub fn warning(name: &'static str, finding: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self { verdict: Verdict::Warning, remedy: Some(remedy.into()), ..Self::ok(name, finding) }
    }

    pub fn fail(name: &'static str, finding: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self { verdict: Verdict::Fail, remedy: Some(remedy.into()), ..Self::ok(name, finding) }
    }
}

impl Verdict {
    fn word(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Note => "note",
            Self::Warning => "warn",
            Self::Fail => "FAIL",
        }
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut text = String::new();
        for Check { name, verdict, finding, remedy } in &self.checks {
            let _ = write!(text, "{:<4}  {name:<INDENT$}", verdict.word(), INDENT = INDENT - 6);
            wrap(&mut text, finding, INDENT);
            if let Some(remedy) = remedy {
                let _ = write!(text, "{:INDENT$}", "");
                wrap(&mut text, &format!("→ {remedy}"), INDENT);
            }
        }
        text.push('\n');
        for DeviceTaken { asked, takes, because } in &self.devices {
            let _ = write!(text, "{:<INDENT$}", format!("--device {asked}"));
            match takes {
                Some(device) => wrap(&mut text, &format!("takes {device}: {because}"), INDENT),
                None => wrap(&mut text, &format!("cannot work: {because}"), INDENT),
            }
        }
        let failed = self.checks.iter().filter(|check| check.verdict == Verdict::Fail).count();
        let _ = match (self.works, failed) {
            (true, _) => writeln!(text, "\nThe server would start and draw."),
            (false, 1) => writeln!(text, "\nThe server would not work: see the line marked FAIL."),
            (false, count) => {
                writeln!(text, "\nThe server would not work: see the {count} lines marked FAIL.")
            }
        };
        f.write_str(&text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn findings_form_a_column_with_remedies_below_them() {
        let checks = vec![
            Check::ok("driver", "580.65.06, CUDA 13.0"),
            Check::fail(
                "port",
                "127.0.0.1:8000 is taken by nginx (process 4242), which listens there since the machine started",
                "stop it, or choose another port with --listen",
            ),
        ];
        let device = DeviceTaken {
            asked: "auto".to_owned(),
            takes: Some("cuda:0".to_owned()),
            because: "CUDA works there".to_owned(),
        };
        let report = Report { version: "0", checks, devices: vec![device], works: false };
        let expected = "\
ok    driver       580.65.06, CUDA 13.0
FAIL  port         127.0.0.1:8000 is taken by nginx (process 4242), which
                   listens there since the machine started
                   → stop it, or choose another port with --listen

--device auto      takes cuda:0: CUDA works there

The server would not work: see the line marked FAIL.
";
        assert_eq!(report.to_string(), expected);
    }
}
