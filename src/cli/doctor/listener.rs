//! Finds the process that listens on a port. Linux only: `/proc/net` has the socket's number, and `/proc/PID/fd` its owner.

use std::fs;

#[derive(Debug, PartialEq, Eq)]
pub(super) struct Process {
    pub id: u32,
    pub name: String,
}

/// The process that listens on this port. `None` if it belongs to another user, or if the system is not Linux.
pub(super) fn listener_on(port: u16) -> Option<Process> {
    let tables = ["/proc/net/tcp", "/proc/net/tcp6"];
    let tables: String = tables.iter().filter_map(|table| fs::read_to_string(table).ok()).collect();
    let numbers = tables.lines().filter_map(|line| socket(line, port));
    let sockets: Vec<String> = numbers.map(|number| format!("socket:[{number}]")).collect();
    let processes = fs::read_dir("/proc").ok()?.filter_map(Result::ok);
    processes.into_iter().find_map(|entry| {
        let id: u32 = entry.file_name().to_str()?.parse().ok()?;
        let mut files = fs::read_dir(entry.path().join("fd")).ok()?.filter_map(Result::ok);
        let holds = files.any(|file| {
            fs::read_link(file.path())
                .is_ok_and(|link| sockets.iter().any(|socket| link.as_os_str() == &**socket))
        });
        let name = fs::read_to_string(entry.path().join("comm")).unwrap_or_default();
        holds.then(|| Process { id, name: name.trim().to_owned() })
    })
}

/// The number of the socket in a line of `/proc/net/tcp`, if it listens on the port.
fn socket(line: &str, port: u16) -> Option<&str> {
    const LISTENING: &str = "0A";
    let fields: Vec<&str> = line.split_whitespace().collect();
    let local = fields.get(1)?.rsplit_once(':')?.1;
    let is_it = u16::from_str_radix(local, 16) == Ok(port) && *fields.get(3)? == LISTENING;
    fields.get(9).copied().filter(|_| is_it)
}

#[cfg(test)]
#[cfg(target_os = "linux")]
mod tests {
    use std::net::TcpListener;

    use super::*;

    #[test]
    fn a_listener_is_found_by_its_port() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let found = listener_on(listener.local_addr().unwrap().port()).unwrap();
        assert_eq!(found.id, std::process::id());
    }

    #[test]
    fn connections_are_no_listeners() {
        let line =
            "   0: 0100007F:1F40 00000000:0000 0A 00000000:00000000 00:00000000 00000000  1000 0 12345 1";
        assert_eq!(socket(line, 8000), Some("12345"));
        assert_eq!(socket(line, 8001), None);
        assert_eq!(socket(&line.replace(" 0A ", " 01 "), 8000), None);
    }
}
