//! Three servers behind `HAProxy`, with the settings of `deploy/haproxy`. It must be installed.

mod cluster;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::{BufRead as _, BufReader};
use std::net::TcpStream;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use serde_json::{Value, json};

use self::cluster::{
    Cluster, HEARD, NATIVE, SETTINGS, agent, command, events, header, json_of, node_of, until,
};
use crate::helpers::{KEY, data_dir, output, small, stablehand};

#[test]
#[ignore = "needs HAProxy"]
fn the_settings_for_kubernetes_are_the_same_but_for_addresses() {
    let kubernetes = include_str!("../../../deploy/kubernetes/haproxy.cfg");
    // Node 0 there is node 1 here.
    let renamed = (0..3).rev().fold(kubernetes.to_owned(), |text, node| {
        let (here, there) = (node + 1, node);
        text.replace(
            &format!("server n{there} stablehand-{there}:"),
            &format!("server n{here} 10.0.0.{here}:"),
        )
        .replace(&format!("node_000{there} from"), &format!("node_000{here} from"))
    });
    // Here the balancer is the first to hear of a client, there an ingress may be before it.
    let rules = |text: &str| -> Vec<String> {
        let lines = text.lines().map(str::trim).filter(|line| !line.starts_with('#') && !line.is_empty());
        let ours = |line: &&str| {
            !["X-Forwarded", "from_ingress", "txn.peer", "Forwarded"].iter().any(|part| line.contains(part))
        };
        lines.filter(ours).map(str::to_owned).collect()
    };
    assert_eq!(rules(&renamed), rules(SETTINGS));
    let dir = data_dir();
    let path = dir.path().join("haproxy.cfg");
    fs::write(&path, renamed).unwrap();
    let checked = output(command("haproxy", &["-c", "-f", path.to_str().unwrap()]));
    assert!(checked.status.success(), "{}", String::from_utf8_lossy(&checked.stderr));
}

#[test]
#[ignore = "needs HAProxy"]
fn everything_that_names_a_job_reaches_its_node() {
    let cluster = Cluster::start();
    let ids: Vec<_> = (0..9).map(|_| cluster.submit(&small("a dog"))).collect();
    let nodes: BTreeSet<_> = ids.iter().map(|id| node_of(id)).collect();
    assert_eq!(nodes, BTreeSet::from(["0001", "0002", "0003"]), "all nodes draw");
    for id in &ids {
        let done = cluster.wait(id);
        assert_eq!(done["status"], "COMPLETED", "{done}");
        let answer = cluster.get(&format!("{NATIVE}/status/{id}"));
        assert_eq!(header(&answer, "x-stablehand-node"), node_of(id));
        // Its URL has the balancer's address, and needs no key.
        let image = json_of(answer)["output"][0]["image"].as_str().unwrap().to_owned();
        assert!(image.starts_with(&cluster.url("/v2/")), "{image}");
        let picture = agent().get(&image).call().unwrap();
        assert_eq!((picture.status().as_u16(), header(&picture, "content-type")), (200, "image/png"));
    }

    let long = json!({"prompt": "a dog", "num_inference_steps": 500, "num_outputs": 10});
    for name in nodes {
        // Directly, so that each node has its turn.
        let id = cluster.server(name).submit(&long).unwrap();
        let streamed = json_of(cluster.get(&format!("{NATIVE}/stream/{id}")));
        assert!(streamed["stream"].is_array(), "{streamed}");
        let signed = json_of(cluster.post(&format!("{NATIVE}/events/{id}/url"), &json!({})));
        let url = signed["url"].as_str().unwrap().to_owned();
        let listening = thread::spawn(move || events(&url));
        until("it runs", || cluster.status(&id)["status"] == "IN_PROGRESS");
        thread::sleep(Duration::from_millis(500));
        let cancelled = json_of(cluster.post(&format!("{NATIVE}/cancel/{id}"), &json!({})));
        assert_eq!(cancelled, json!({"id": id, "status": "CANCELLED"}));
        let heard = listening.join().unwrap();
        assert!(heard.iter().any(|line| line == "event: progress"), "{heard:?}");
        assert_eq!(heard.last().map(String::as_str), Some("event: end"));
        let retried = cluster.post(&format!("{NATIVE}/retry/{id}"), &json!({}));
        assert_eq!(retried.status(), 400, "its node knows that it was cancelled");
        let deleted = cluster.post(&format!("{NATIVE}/delete/{id}"), &json!({}));
        assert_eq!(deleted.status(), 200);
        assert_eq!(cluster.get(&format!("{NATIVE}/status/{id}")).status(), 404);
    }
}

#[test]
#[ignore = "needs HAProxy"]
fn whoever_asks_for_more_than_a_job_stays_at_a_node() {
    let cluster = Cluster::start();
    // A request that is sent again has the job of the first one.
    let sent = |key: &str| {
        let url = cluster.url(&format!("{NATIVE}/run"));
        let request = agent().post(url).header("Authorization", KEY).header("Idempotency-Key", key);
        json_of(request.send_json(json!({"input": small("a dog")})).unwrap())["id"]
            .as_str()
            .unwrap()
            .to_owned()
    };
    for key in ["one", "two", "three", "four"] {
        let ids: BTreeSet<_> = (0..6).map(|_| sent(key)).collect();
        assert_eq!(ids.len(), 1, "{ids:?}");
    }

    let named = |name: &str| {
        let url = cluster.url(&format!("{NATIVE}/health"));
        let request = agent().get(url).header("Authorization", KEY).header("X-Stablehand-Node", name);
        header(&request.call().unwrap(), "x-stablehand-node").to_owned()
    };
    for name in ["0001", "0002", "0003"] {
        assert_eq!(named(name), name, "a request may name its node");
    }

    // Lists, A1111's clients and a browser.
    let node = |path: &str| header(&cluster.get(path), "x-stablehand-node").to_owned();
    let first = node(&format!("{NATIVE}/health"));
    for path in [
        &format!("{NATIVE}/health"),
        &format!("{NATIVE}/requests"),
        "/v2/library",
        "/sdapi/v1/progress",
        "/v2/sdapi/v1/options",
    ] {
        for _ in 0..3 {
            assert_eq!(node(path), first, "{path}");
        }
    }
    let browser = |path: &str| {
        let request = agent().get(cluster.url(path)).header("User-Agent", "Mozilla/5.0 (X11)");
        header(&request.call().unwrap(), "x-stablehand-node").to_owned()
    };
    assert!((0..4).all(|_| browser("/") == first && browser("/docs") == first));

    // A page of a list, from anywhere.
    let other = if first == "0001" { "0002" } else { "0001" };
    (0..2).for_each(|_| _ = cluster.server(other).submit(&small("a cat")).unwrap());
    let page = cluster.server(other).get("requests?limit=1").unwrap();
    let next = cluster.get(&format!("{NATIVE}/requests?limit=1&cursor={}", page["cursor"].as_str().unwrap()));
    assert_eq!((next.status().as_u16(), header(&next, "x-stablehand-node")), (200, other));

    // MCP: a session is at one node, also where its client comes from elsewhere.
    let version = json!({"protocolVersion": "2025-06-18", "capabilities": {}, "clientInfo": {"name": "a", "version": "1"}});
    let mcp = |url: String, session: Option<&str>, message: Value| {
        let request = agent()
            .post(url)
            .header("Authorization", KEY)
            .header("Accept", "application/json, text/event-stream");
        let request = match session {
            Some(session) => {
                request.header("Mcp-Session-Id", session).header("Mcp-Protocol-Version", "2025-06-18")
            }
            None => request,
        };
        request.send_json(message).unwrap()
    };
    let begin = json!({"jsonrpc": "2.0", "id": 0, "method": "initialize", "params": version});
    let direct = format!("http://{}/mcp", cluster.server(other).address());
    let session = header(&mcp(direct, None, begin), "mcp-session-id").to_owned();
    let list = json!({"jsonrpc": "2.0", "id": 1, "method": "tools/list"});
    let answer = mcp(cluster.url("/mcp"), Some(&session), list);
    assert_eq!((answer.status().as_u16(), header(&answer, "x-stablehand-node")), (200, other));
}

#[test]
#[ignore = "needs HAProxy"]
fn new_jobs_go_where_they_begin_soonest() {
    let cluster = Cluster::start();
    cluster.keep_busy("0002");
    let mut count: BTreeMap<String, u32> = BTreeMap::new();
    for _ in 0..12 {
        let id = cluster.submit(&small("a dog"));
        *count.entry(node_of(&id).to_owned()).or_default() += 1;
        cluster.wait(&id);
    }
    assert_eq!((count.get("0002"), count.len()), (None, 2), "{count:?}");

    // Which of two busy nodes waits longer depends on how fast this machine drew for each, so only idle and busy are compared.
    let weight = |name: &str| {
        let address = cluster.server(name).address().split(':').next().unwrap().to_owned();
        let mut line = String::new();
        let mut agent = BufReader::new(TcpStream::connect((address, cluster.agent_port)).unwrap());
        agent.read_line(&mut line).unwrap();
        line.trim_end().trim_end_matches('%').parse::<u32>().unwrap()
    };
    assert!((1..=50).contains(&weight("0002")), "{}", weight("0002"));
    until("the others are idle", || weight("0001") == 100 && weight("0003") == 100);

    // Where nobody begins at once, the job is taken and waits.
    for name in ["0001", "0003"] {
        cluster.keep_busy(name);
        assert!((1..=50).contains(&weight(name)), "{}", weight(name));
    }
    let id = cluster.submit(&small("a dog"));
    assert_eq!(cluster.status(&id)["status"], "IN_QUEUE");
}

#[test]
#[ignore = "needs HAProxy"]
fn a_node_dies_and_its_jobs_come_back_with_it() {
    let mut cluster = Cluster::start();
    let long = json!({"prompt": "a dog", "num_inference_steps": 200, "seed": 5});
    let lost: Vec<_> = (0..3).map(|_| cluster.server("0003").submit(&long).unwrap()).collect();
    let begun: Vec<_> = (0..6).map(|_| cluster.submit(&small("a cat"))).collect();
    cluster.nodes.get_mut("0003").unwrap().server.take().unwrap().kill();
    // From this moment on: nobody's request fails because of the node that is gone.
    let during: Vec<_> = (0..20).map(|_| cluster.submit(&small("a bird"))).collect();
    for id in &during {
        assert_ne!(node_of(id), "0003");
        assert_eq!(cluster.wait(id)["status"], "COMPLETED");
    }
    let mut gone = cluster.get(&format!("{NATIVE}/status/{}", lost[0]));
    let body: Value = gone.body_mut().read_json().unwrap();
    assert_eq!((gone.status().as_u16(), header(&gone, "retry-after")), (503, "5"));
    assert_eq!(body, json!({"error": "No server answers: try again later."}));

    cluster.start_node("0003");
    for id in lost.iter().chain(&begun) {
        let done = cluster.wait(id);
        assert_eq!(done["status"], "COMPLETED", "{done}");
    }
    thread::sleep(HEARD);
    let again: BTreeSet<_> = (0..9).map(|_| node_of(&cluster.submit(&small("a dog"))).to_owned()).collect();
    assert!(again.contains("0003"), "{again:?}");
}

#[test]
#[ignore = "needs HAProxy"]
fn a_drained_node_gets_no_new_jobs_and_loses_none() {
    let cluster = Cluster::start();
    let begun: Vec<_> = (0..12).map(|_| cluster.submit(&small("a dog"))).collect();
    let server = cluster.server("0002");
    let own = server.submit(&json!({"prompt": "a dog", "num_inference_steps": 300})).unwrap();
    let drain = |args: &[&str]| {
        let mut command = stablehand(&["drain"]);
        command.args(args).arg("--data-dir").arg(cluster.nodes["0002"].data.path());
        let output = output(command);
        (output.status.code(), String::from_utf8(output.stdout).unwrap())
    };
    assert_eq!(drain(&["--wait", "0s"]).0, Some(1), "jobs are left");
    let (code, said) = drain(&["--wait", "60s"]);
    assert_eq!((code, said.lines().last()), (Some(0), Some("drained: no job waits or runs")));
    thread::sleep(HEARD);
    let later: Vec<_> = (0..12).map(|_| cluster.submit(&small("a cat"))).collect();
    assert!(later.iter().all(|id| node_of(id) != "0002"), "{later:?}");
    for id in begun.iter().chain(&later).chain([&own]) {
        let done = cluster.wait(id);
        assert_eq!(done["status"], "COMPLETED", "{done}");
        let picture = agent().get(done["output"][0]["image"].as_str().unwrap()).call().unwrap();
        assert_eq!(picture.status(), 200);
    }
    assert_eq!(drain(&["--off"]), (Some(0), "new jobs come here again\n".to_owned()));
    thread::sleep(HEARD);
    let again: BTreeSet<_> = (0..9).map(|_| node_of(&cluster.submit(&small("a dog"))).to_owned()).collect();
    assert!(again.contains("0002"), "{again:?}");
}

#[test]
#[ignore = "needs HAProxy"]
fn an_upgrade_of_one_node_after_the_other_is_seen_by_no_client() {
    let mut cluster = Cluster::start();
    let stop = AtomicBool::new(false);
    let url = cluster.url(NATIVE);
    let client = |number: u64| {
        let mut done = 0;
        while !stop.load(Ordering::Relaxed) {
            let input = json!({"prompt": "a dog", "num_inference_steps": 20, "seed": number});
            let run = agent().post(format!("{url}/run")).header("Authorization", KEY);
            let mut answer = run.send_json(json!({"input": input})).unwrap();
            let body: Value = answer.body_mut().read_json().unwrap();
            assert_eq!(answer.status(), 200, "run: {body}");
            let id = body["id"].as_str().unwrap().to_owned();
            let image = loop {
                let status = agent().get(format!("{url}/status/{id}")).header("Authorization", KEY);
                let mut answer = status.call().unwrap();
                let body: Value = answer.body_mut().read_json().unwrap();
                assert_eq!(answer.status(), 200, "status: {body}");
                match body["status"].as_str().unwrap() {
                    "COMPLETED" => break body["output"][0]["image"].as_str().unwrap().to_owned(),
                    "IN_QUEUE" | "IN_PROGRESS" => thread::sleep(Duration::from_millis(50)),
                    _ => panic!("{body}"),
                }
            };
            assert_eq!(agent().get(&image).call().unwrap().status(), 200);
            done += 1;
        }
        done
    };
    thread::scope(|scope| {
        let clients: Vec<_> = (0..4).map(|number| scope.spawn(move || client(number))).collect();
        for name in ["0001", "0002", "0003"] {
            let mut drain = stablehand(&["drain", "--data-dir"]);
            drain.arg(cluster.nodes[name].data.path());
            assert!(output(drain).status.success());
            thread::sleep(HEARD);
            let server = cluster.nodes.get_mut(name).unwrap().server.take().unwrap();
            assert_eq!(server.terminate().code(), Some(0));
            cluster.start_node(name);
            cluster.wait_until_ready(name);
            thread::sleep(Duration::from_secs(2));
        }
        stop.store(true, Ordering::Relaxed);
        let done: Vec<u32> = clients.into_iter().map(|client| client.join().unwrap()).collect();
        assert!(done.iter().all(|done| *done > 0), "{done:?}");
    });
}
