//! Settings from flags and from the configuration file.

use std::num::NonZero;
use std::time::Duration;

use clap::{Args, Command, FromArgMatches};
use stablehand::config::{Access, Config, ConfigFile, EndpointConfig, ServeArgs};
use stablehand::domain::EndpointId;
use stablehand::fetch::AllowedAddresses;
use stablehand::runtime::{CpuSpeed, DeviceChoice};

fn command() -> Command {
    ServeArgs::augment_args(Command::new("serve").no_binary_name(true))
}

fn config(flags: &[&str]) -> Result<Config, String> {
    let matches = command().try_get_matches_from(flags).map_err(|error| error.to_string())?;
    let args = ServeArgs::from_arg_matches(&matches).map_err(|error| error.to_string())?;
    args.into_config().map_err(|error| error.to_string())
}

/// The configuration from flags and a file. Errors name the file FILE.
fn config_with(file: &str, flags: &[&str]) -> Result<Config, String> {
    let path = tempfile::NamedTempFile::new().unwrap().into_temp_path();
    std::fs::write(&path, file).unwrap();
    let sentence = |error: &dyn std::fmt::Display| error.to_string().replace(path.to_str().unwrap(), "FILE");
    let file = ConfigFile::read(&path).map_err(|error| sentence(&error))?;
    let command = file.lay_under(command()).map_err(|error| sentence(&error))?;
    let matches = command.try_get_matches_from(flags).map_err(|error| sentence(&error))?;
    let args = ServeArgs::from_arg_matches(&matches).map_err(|error| sentence(&error))?;
    ServeArgs { endpoints: file.endpoints, ..args }.into_config().map_err(|error| sentence(&error))
}

#[test]
fn the_defaults_match_the_contract() {
    let config = config(&[]).unwrap();
    assert_eq!(config.listen.to_string(), "127.0.0.1:8000");
    assert_eq!(config.queue.retention, Duration::from_mins(30));
    assert_eq!(config.queue.sync_retention, Duration::from_mins(1));
    assert_eq!(config.queue.sync_waited_retention, Duration::from_mins(5));
    assert_eq!((config.queue.queue_limit, config.endpoints.len()), (10_000, 1));
    assert_eq!(config.shutdown_grace, Duration::from_secs(10));
    assert_eq!(config.sweep_interval, Duration::from_secs(20));
    let id = EndpointId::default();
    let endpoint = EndpointConfig { id, model: None, device: DeviceChoice::Auto, workers: 1, preload: true };
    assert_eq!((&config.endpoints[0], config.public_url), (&endpoint, None));
    assert_eq!(config.allow_addresses, AllowedAddresses::default());
    assert!(config.access == Access::OwnKey);
    assert!(config.data_dir.ends_with("stablehand"));
    assert_eq!((config.memory_budget, config.unload_after), (None, None));
    assert_eq!(config.save_every, Some(Duration::from_secs(10)));
}

#[test]
fn saving_jobs_can_be_off() {
    let every = |text: &str| config(&["--save-every", text]).map(|config| config.save_every);
    assert_eq!(every("90s"), Ok(Some(Duration::from_secs(90))));
    assert_eq!(every("0s"), Ok(None));
    assert!(every("often").unwrap_err().contains("it should be a time such as"));
}

#[test]
fn the_processor_s_settings_come_from_flags_and_the_file() {
    let usual = config(&[]).unwrap().cpu;
    assert_eq!((usual.speed, usual.threads), (CpuSpeed::Auto, None));
    let cpu = config_with("cpu-speed = 'memory'\nthreads = 3\n", &["--cpu-speed", "fast"]).unwrap().cpu;
    assert_eq!((cpu.speed, cpu.threads.map(NonZero::get)), (CpuSpeed::Fast, Some(3)));
    let slow = config(&["--cpu-speed", "slow"]).map(|config| config.cpu);
    assert!(slow.unwrap_err().contains("auto, fast or memory"));
    assert!(config(&["--threads", "0"]).is_err());
}

#[test]
fn memory_sizes_have_common_units() {
    let budget = |text: &str| config(&["--memory-budget", text]).map(|config| config.memory_budget);
    for (text, bytes) in [
        ("12GiB", 12 << 30),
        ("12 GiB", 12 << 30),
        ("1.5GB", 1_500_000_000),
        ("64MB", 64_000_000),
        ("20000000", 20_000_000),
    ] {
        assert_eq!(budget(text), Ok(Some(bytes)), "{text}");
    }
    for (text, reason) in
        [("lots", "it should be a size such as 12GiB"), ("0", "it should be at least 16.0 MiB")]
    {
        assert!(budget(text).unwrap_err().contains(reason), "{text}: {:?}", budget(text));
    }
    let file = "memory-budget = '2GiB'\nunload-after = '10m'\npreload = false\n";
    let config = config_with(file, &[]).unwrap();
    assert_eq!(config.memory_budget, Some(2 << 30));
    assert_eq!(config.unload_after, Some(Duration::from_mins(10)));
    assert!(!config.endpoints[0].preload);
}

#[test]
fn a_sync_retention_counts_for_waited_jobs_too_and_shortens_the_sweep_interval() {
    let config = config(&["--sync-retention", "3s"]).unwrap();
    assert_eq!(config.queue.sync_retention, Duration::from_secs(3));
    assert_eq!(config.queue.sync_waited_retention, Duration::from_secs(3));
    assert_eq!(config.sweep_interval, Duration::from_secs(1));
}

#[test]
fn keys_come_from_a_list_and_a_file() {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), "# ours\n  third \n\nfourth # the night shift\n").unwrap();
    let flags = ["--api-keys", "first, second,,", "--api-keys-file", file.path().to_str().unwrap()];
    let keys = ["first", "second", "third", "fourth"].map(str::to_owned).to_vec();
    assert!(config(&flags).unwrap().access == Access::Keys(keys));
    assert!(config(&["--api-keys", " , "]).unwrap().access == Access::OwnKey);
    assert!(config(&["--api-keys", "two words"]).is_err());
    std::fs::write(file.path(), "# none\n").unwrap();
    assert!(config(&["--api-keys-file", file.path().to_str().unwrap()]).is_err());
}

#[test]
fn secrets_that_several_servers_share_come_as_text_or_from_files() {
    let (key, secret) = ("A".repeat(43), format!("whsec_{}", "A".repeat(32)));
    let file = |text: &str| {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), format!("{text}\n")).unwrap();
        file
    };
    let (key_file, secret_file) = (file(&key), file(&secret));
    let [key_path, secret_path] = [&key_file, &secret_file].map(|file| file.path().to_str().unwrap());
    for flags in [
        ["--signing-key", &key, "--webhook-secret", &secret],
        ["--signing-key-file", key_path, "--webhook-secret-file", secret_path],
    ] {
        let config = config(&flags).unwrap();
        assert_eq!(config.signing_key, Some([0; 32]));
        assert!(config.webhook_secret == Some(secret.parse().unwrap()));
    }
    assert!(config(&[]).unwrap().signing_key.is_none());
    assert_eq!(
        config(&["--signing-key", &key, "--signing-key-file", key_path]).err().as_deref(),
        Some("give --signing-key or --signing-key-file, not both")
    );
    let missing = config(&["--webhook-secret-file", "/nonexistent"]).err().unwrap();
    assert!(missing.starts_with("cannot read the file /nonexistent of --webhook-secret-file: "), "{missing}");
    // The errors do not repeat a secret.
    let wrong = config(&["--signing-key", "my secret"]).err();
    assert_eq!(wrong.as_deref(), Some("invalid signing key: it should be the base64 of 32 random bytes"));
}

#[test]
fn a_node_is_a_number_with_an_agent_on_this_machine() {
    let numbered = config(&["--node", "7", "--agent-listen", "9101", "--api-keys", "a"]).unwrap();
    let node = Some("7".parse().unwrap());
    assert_eq!((numbered.queue.node, numbered.http.node), (node, node));
    assert_eq!(numbered.agent_listen.unwrap().to_string(), "127.0.0.1:9101");
    assert_eq!(config_with("node = 7\napi-keys = \"a\"\n", &[]).unwrap().http.node, node);
    let usual = config(&[]).unwrap();
    assert_eq!((usual.http.node, usual.agent_listen), (None, None));
    assert!(config(&["--node", "65536"]).err().unwrap().contains("it should be a number from 0 to 65535"));
}

#[test]
fn authentication_can_be_off_only_on_loopback() {
    assert!(config(&["--auth", "off"]).unwrap().access == Access::Everybody);
    assert!(config(&["--auth", "off", "--listen", "[::1]:1"]).is_ok());
    assert!(config(&["--auth", "off", "--listen", "0.0.0.0:8000"]).is_err());
    assert!(config(&["--listen", "0.0.0.0:8000"]).is_ok());
}

#[test]
fn values_are_read_and_checked() {
    let config = |flags: &[&str]| config(flags);
    assert_eq!(
        config(&["--public-url", "https://a.example/sd/"]).unwrap().public_url.as_deref(),
        Some("https://a.example/sd")
    );
    assert_eq!(config(&["--device", "cuda:3"]).unwrap().endpoints[0].device, DeviceChoice::Cuda(3));
    assert_eq!(config(&["--listen", "localhost:81"]).unwrap().listen.to_string(), "127.0.0.1:81");
    for flags in [
        ["--public-url", "ftp://a"],
        ["--public-url", "a.example"],
        ["--public-url", "http://"],
        ["--public-url", "http://a b"],
        ["--public-url", "http://u@a"],
        ["--public-url", "http://a/#b"],
        ["--device", "cuda:x"],
        ["--device", "cuda:"],
        ["--workers", "-1"],
        ["--workers", "65"],
        ["--queue-limit", "0"],
        ["--retention", "30"],
        ["--retention", "1ms"],
        ["--sweep-interval", "0s"],
    ] {
        assert!(config(&flags).is_err(), "{flags:?}");
    }
}

#[test]
fn limits_and_origins_are_read_and_checked() {
    let http = config(&[]).unwrap().http;
    // A share of the machine's memory.
    assert!((64 << 20..=1 << 30).contains(&http.body_memory), "{}", http.body_memory);
    let usual = stablehand::http::HttpSettings { body_memory: http.body_memory, ..Default::default() };
    assert_eq!(http, usual);
    for refused in [["--body-memory", "1MiB"], ["--trusted-proxies", "proxy.example"]] {
        assert!(config(&refused).is_err(), "{refused:?}");
    }
    let http = config(&["--body-memory", "100MiB", "--trusted-proxies", "none"]).unwrap().http;
    assert_eq!((http.body_memory, http.trusted_proxies), (100 << 20, "none".parse().unwrap()));
    let http = config(&["--rate-limits", "off", "--cors-origins", "https://a.example,http://localhost:3000"])
        .unwrap()
        .http;
    assert_eq!(http.rate_limits, stablehand::http::RateLimits::OFF);
    assert_eq!(http.cors_origins, ["https://a.example", "http://localhost:3000"]);
    for flags in [
        ["--rate-limits", "run"],
        ["--rate-limits", "dance=1"],
        ["--metrics", "closed"],
        ["--log-format", "xml"],
        ["--cors-origins", "a.example"],
        ["--cors-origins", "https://a.example/"],
        ["--cors-origins", "https://A.example"],
        ["--cors-origins", "https://a.example/page"],
        ["--hosts", "https://a.example"],
        ["--hosts", "a.example:80"],
    ] {
        assert!(config(&flags).is_err(), "{flags:?}");
    }
}

#[test]
fn surfaces_are_all_on_and_closed_unless_they_are_named() {
    use stablehand::http::Surface;
    let http = |flags: &[&str]| config(flags).map(|config| config.http);
    let usual = http(&[]).unwrap();
    assert!(Surface::ALL.iter().all(|surface| usual.surfaces.contains(*surface)));
    assert!(!Surface::ALL.iter().any(|surface| usual.open_surfaces.contains(*surface)));
    assert!(!http(&["--surfaces", "none"]).unwrap().surfaces.contains(Surface::OpenAi));
    let open = http(&["--open-surfaces", "openai@192.168.0.0/16"]).unwrap().open_surfaces;
    assert!(open.admit(Surface::OpenAi, "192.168.3.4".parse().unwrap()));
    let file = config_with("open-surfaces = 'openai'\nsurfaces = 'openai'\n", &[]).unwrap().http;
    assert!(file.open_surfaces.contains(Surface::OpenAi));
    assert_eq!(
        http(&["--surfaces", "none", "--open-surfaces", "openai"]).unwrap_err(),
        "--open-surfaces names openai, which is not served: add it to --surfaces"
    );
    for (flag, value, reason) in [
        ("--surfaces", "comfy", "unknown surface comfy; choose from openai"),
        ("--open-surfaces", "openai@home", "home is not a network such as 192.168.1.0/24"),
    ] {
        let error = http(&[flag, value]).unwrap_err();
        assert!(error.contains(reason), "{error}");
    }
}

#[test]
fn allowed_addresses_are_read_from_one_list() {
    let allowed = config(&["--allow-addresses", "127.0.0.0/8, minio.internal"]).unwrap().allow_addresses;
    assert_eq!(allowed.to_string(), "127.0.0.0/8,minio.internal");
    let error = config(&["--allow-addresses", "10.0.0.0/33"]).map(|_| ()).unwrap_err();
    assert!(error.contains("10.0.0.0/33 is not a network such as 10.1.2.0/24"), "{error}");
}

#[test]
fn a_file_sets_what_the_flags_leave_open() {
    let file = "retention = '10m'\nqueue-limit = 5_000\nworkers = 3\nauth = 'off'\n";
    let config = config_with(file, &["--retention", "20m"]).unwrap();
    assert_eq!(config.queue.retention, Duration::from_mins(20));
    assert_eq!((config.queue.queue_limit, config.endpoints[0].workers), (5_000, 3));
    assert!(config.access == Access::Everybody);
    assert_eq!(config_with("", &[]).unwrap().endpoints[0].id, EndpointId::default());
}

#[test]
fn models_are_managed_where_no_key_is_needed_or_a_setting_says_so() {
    let manages = |flags: &[&str]| config_with("", flags).unwrap().manage_models;
    assert!(!manages(&[]) && !manages(&["--api-keys", "a"]));
    assert!(manages(&["--auth", "off"]) && manages(&["--manage-models", "on"]));
    assert!(!manages(&["--auth", "off", "--manage-models", "off"]));
}

#[test]
fn a_file_defines_endpoints_and_the_flags_fill_in() {
    let file = "device = 'cpu'\n[endpoints.b-model]\nmodel = '/models/b'\nworkers = 0\npreload = false\n\n\
                [endpoints.a-model]\ndevice = 'cuda:1'\n";
    let endpoint = |id: &str, model: &str, device, workers, preload| EndpointConfig {
        id: EndpointId::new(id),
        model: Some(model.into()),
        device,
        workers,
        preload,
    };
    assert_eq!(
        config_with(file, &["--model", "/models/a", "--workers", "2"]).unwrap().endpoints,
        [
            endpoint("b-model", "/models/b", DeviceChoice::Cpu, 0, false),
            endpoint("a-model", "/models/a", DeviceChoice::Cuda(1), 2, true)
        ]
    );
}

#[test]
fn an_error_in_a_file_names_its_line() {
    for (file, sentence) in [
        ("\nretentoin = '1m'", "FILE, line 2: there is no setting retentoin"),
        ("queue_limit = 1", "FILE, line 1: there is no setting queue_limit; did you mean queue-limit?"),
        ("config = 'other'", "FILE, line 1: there is no setting config"),
        (
            "log = 'off'\nretention = 'soon'",
            "FILE, line 2: invalid value 'soon' for '--retention <TIME>': it should be a time such as 30m, 90s or 1h 30m",
        ),
        ("workers = [1]", "FILE, line 1: workers should be a string or a number"),
        ("a = 1\na = 2", "FILE, line 2: duplicate key"),
        ("endpoints = 3", "FILE, line 1: endpoints should be tables, such as [endpoints.my-model]"),
        ("\n[endpoints]", "FILE, line 2: endpoints should be tables, such as [endpoints.my-model]"),
        (
            "[endpoints.'a/b']",
            "FILE, line 1: 'a/b' is not a valid endpoint name: use up to 64 letters, digits, -, _ and .",
        ),
        (
            "[endpoints.models]",
            "FILE, line 1: 'models' cannot name an endpoint, because /v1/models is another route: choose another name",
        ),
        (
            "[endpoints.a]\n\nspeed = 1",
            "FILE, line 3: an endpoint has no setting speed: it has model, device, workers and preload",
        ),
        (
            "[endpoints.a]\nworkers = 65",
            "FILE, line 2: invalid value '65' for workers: it should be from 0 to 64",
        ),
        (
            "[endpoints.a]\ndevice = 'tpu'",
            "FILE, line 2: invalid value 'tpu' for device: it should be auto, cpu, cuda or cuda:N (such as cuda:1)",
        ),
        (
            "[endpoints.a]\npreload = 'soon'",
            "FILE, line 2: invalid value 'soon' for preload: it should be true or false",
        ),
    ] {
        assert_eq!(config_with(file, &[]).err().as_deref(), Some(sentence), "{file}");
    }
}
