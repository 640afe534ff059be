//! Checks the runtime, CUDA's libraries, the devices that the server would use, and the models on them.

use std::path::Path;
use std::time::Instant;

use super::card::available_memory;
use super::report::{Check, DeviceTaken};
use crate::cli::open_model::open_model;
use crate::config::{Config, EndpointConfig};
use crate::diffusion::{DiffusionError, Model};
use crate::domain::{GenerationInput, ImageSize};
use crate::runtime::{
    CUDA_VERSION, CpuSettings, CudaLibrary, Device, DeviceChoice, Driver, Library, LibraryPlace, Origin,
    Planned, Runtime, RuntimesDir, cache_dir, card_memory, cuda_libraries, unpacked, use_installed,
    why_no_card,
};
use crate::size_text::size_text;

pub(super) struct Engine {
    pub checks: Vec<Check>,
    pub devices: Vec<DeviceTaken>,
}

pub(super) fn examine(config: &Config, runtimes: &RuntimesDir, choices: &[DeviceChoice]) -> Engine {
    let mut checks = Vec::new();
    let planned = match Planned::for_devices(runtimes, choices) {
        Ok(planned) => planned,
        Err(error) => {
            checks.push(Check::fail(
                "runtime",
                error.to_string(),
                "correct STABLEHAND_ORT_DYLIB or unset it",
            ));
            return Engine { checks, devices: Vec::new() };
        }
    };
    checks.extend(runtime(&planned, runtimes));
    if let Planned::Library(library) = &planned {
        checks.extend(libraries(library));
    }
    use_installed(runtimes.clone(), choices.iter().copied());
    let mut devices = Vec::new();
    for choice in choices {
        let (device, taken, drawn) = select_device(*choice, config.cpu, &planned);
        if device.is_none() {
            let (reason, remedy) = split_remedy(&taken.because);
            let remedy = remedy.unwrap_or_else(|| "use --device auto or --device cpu".to_owned());
            checks.push(Check::fail("device", reason, remedy));
        }
        checks.extend(drawn);
        let endpoints = config.endpoints.iter().filter(|endpoint| endpoint.device == *choice);
        checks.extend(endpoints.map(|endpoint| model(config, endpoint, device.as_ref())));
        devices.push(taken);
    }
    Engine { checks, devices }
}

fn runtime(planned: &Planned, runtimes: &RuntimesDir) -> Vec<Check> {
    let mut checks = Vec::new();
    match planned {
        Planned::Library(library) => {
            let version = library.version().unwrap_or_else(|| "of an unknown version".to_owned());
            let from = match library.origin {
                Origin::Named => "named by STABLEHAND_ORT_DYLIB",
                Origin::Installed => "installed for CUDA",
                Origin::Embedded => "inside stablehand",
            };
            let place = library.path.display();
            checks.push(Check::ok("runtime", format!("ONNX Runtime {version}, {from}: {place}")));
        }
        Planned::Embedded { unused_card } => {
            let finding = "the ONNX Runtime inside stablehand, for the CPU";
            checks.push(match unused_card.as_deref().map(split_remedy) {
                // Only problems of the runtime: other checks cover the card and the driver.
                Some((reason, Some(remedy))) if remedy.contains("runtime install") => {
                    Check::warning("runtime", format!("{finding}: {reason}"), remedy)
                }
                _ => Check::ok("runtime", finding),
            });
        }
    }
    for installed in runtimes.list().iter().filter(|runtime| !runtime.is_whole()) {
        checks.push(Check::warning(
            "runtime",
            format!("{} is damaged: {}", installed.name(), installed.damaged().join(", ")),
            "`stablehand runtime install cuda` repairs it",
        ));
    }
    checks
}

/// Splits a sentence of the runtime such as `reason; remedy`.
fn split_remedy(sentence: &str) -> (String, Option<String>) {
    match sentence.split_once("; ") {
        Some((reason, remedy)) => (reason.to_owned(), Some(remedy.to_owned())),
        None => (sentence.to_owned(), None),
    }
}

/// Checks that CUDA's libraries are there, if ONNX Runtime's library is one for CUDA.
fn libraries(library: &Library) -> Option<Check> {
    // A build for the CPU needs none of them. What other versions need is unknown.
    let provider = library.path.with_file_name("libonnxruntime_providers_cuda.so");
    if !provider.is_file() || library.version().as_deref() != Some(CUDA_VERSION) {
        return None;
    }
    let all = cuda_libraries(&library.path);
    let (found, missing): (Vec<_>, Vec<_>) = all.iter().partition(|library| library.place.is_some());
    let names =
        |libraries: &[&_]| libraries.iter().map(|l: &&CudaLibrary| l.name).collect::<Vec<_>>().join(", ");
    if !missing.is_empty() {
        let remedy = "`stablehand runtime install cuda` brings them, or put them where the system's loader looks \
                      (LD_LIBRARY_PATH)";
        return Some(Check::warning("libraries", format!("missing: {}", names(&missing)), remedy));
    }
    let is_beside = |library: &&&CudaLibrary| matches!(library.place, Some(LibraryPlace::Beside(_)));
    let beside = found.iter().filter(is_beside).count();
    let place = match beside {
        0 => "where the system's loader looks".to_owned(),
        count if count == found.len() => "beside the runtime".to_owned(),
        count => {
            format!("{count} beside the runtime, {} where the system's loader looks", found.len() - count)
        }
    };
    Some(Check::ok("libraries", format!("all {} found, {place}", found.len())))
}

/// Finds the device for a choice, and tries to draw on it. ONNX Runtime is not loaded if it would have to be unpacked first,
/// because the doctor changes nothing.
fn select_device(
    choice: DeviceChoice,
    cpu: CpuSettings,
    planned: &Planned,
) -> (Option<Device>, DeviceTaken, Option<Check>) {
    let taken = |takes: Option<&Device>, because: String| DeviceTaken {
        asked: choice.to_string(),
        takes: takes.map(Device::name),
        because,
    };
    if let Planned::Embedded { unused_card } = planned
        && unpacked(&cache_dir()).is_none()
    {
        if matches!(choice, DeviceChoice::Cuda(_)) {
            let reason = unused_card.clone().or_else(why_no_card).unwrap_or_default();
            return (None, taken(None, reason), None);
        }
        let because = because(choice, planned, None);
        return (Some(Device::Cpu), taken(Some(&Device::Cpu), because), None);
    }
    let runtime = match Runtime::load(choice) {
        Ok(runtime) => runtime.with_cpu(cpu),
        Err(error) => return (None, taken(None, error.to_string()), None),
    };
    let device = runtime.device().clone();
    let because = match device.is_cpu() {
        true => because(choice, planned, runtime.note()),
        false => "the driver shows it and ONNX Runtime can use it".to_owned(),
    };
    let taken = taken(Some(&device), because);
    (Some(device), taken, Some(drawing(&runtime)))
}

/// Draws with the built-in model at the smallest size. Only this shows that the driver, the libraries and the kernels work
/// together.
fn drawing(runtime: &Runtime) -> Check {
    const NAME: &str = "drawing";
    let device = runtime.device();
    let started = Instant::now();
    match draw(runtime) {
        Ok(means) => {
            let took = started.elapsed().as_secs_f64();
            let means = means.map(|means| format!(", with {means}")).unwrap_or_default();
            let name = device.name();
            Check::ok(
                NAME,
                format!("the built-in model draws on {name}: loaded and drawn in {took:.1} s{means}"),
            )
        }
        Err(reason) => {
            let remedy = match device.is_cpu() {
                true => "open an issue with the output of `stablehand doctor --json`",
                false => "use --device cpu, and open an issue with the output of `stablehand doctor --json`",
            };
            Check::fail(
                NAME,
                format!("the built-in model does not draw on {}: {reason}", device.name()),
                remedy,
            )
        }
    }
}

/// Returns how it drew.
fn draw(runtime: &Runtime) -> Result<Option<String>, DiffusionError> {
    let model = Model::open(None, None)?;
    let mut pipeline = model.load(runtime)?;
    let rules = model.rules();
    let input = GenerationInput {
        size: ImageSize { width: 64, height: 64 },
        num_inference_steps: 1,
        scheduler: rules.scheduler,
        ..GenerationInput::new("a picture")
    };
    pipeline.draw(&input, 0)?;
    Ok(pipeline.means())
}

/// Why the CPU is selected.
fn because(choice: DeviceChoice, planned: &Planned, note: Option<&str>) -> String {
    match (choice, planned, note) {
        (DeviceChoice::Cpu, _, _) => "it is asked for".to_owned(),
        (_, Planned::Embedded { unused_card: Some(reason) }, _) => reason.clone(),
        (_, _, Some(note)) => note.to_owned(),
        _ => match Driver::get() {
            Driver::Missing => "there is no NVIDIA card".to_owned(),
            _ => "no NVIDIA card can be used".to_owned(),
        },
    }
}

/// Checks that an endpoint's model opens and fits into the device's memory.
fn model(config: &Config, endpoint: &EndpointConfig, device: Option<&Device>) -> Check {
    let asked = endpoint.model.as_deref();
    let cpu = Device::Cpu;
    let device = device.unwrap_or(&cpu);
    let (name, needs) = match opened(asked, config, device) {
        Ok(opened) => opened,
        Err(reason) => {
            let remedy = "name another with --model, or see what `stablehand models check` says of it";
            return Check::fail("model", reason, remedy);
        }
    };
    let finding = format!("{name} opens and needs about {} on {}", size_text(needs), device.name());
    let budget = device.budget(config.memory_budget);
    if let Some(budget) = budget.filter(|budget| *budget < needs) {
        return Check::fail(
            "model",
            format!("{finding}; models may take {} there", size_text(budget)),
            "use a smaller model or another device, or raise --memory-budget",
        );
    }
    let free = match device {
        Device::Cpu => available_memory(),
        Device::Cuda { index, .. } => {
            card_memory(*index).map(|memory| memory.total.saturating_sub(memory.used))
        }
    };
    match free {
        Some(free) if free < needs => Check::warning(
            "model",
            format!("{finding}; {} are free now", size_text(free)),
            "stop other programs that hold memory there",
        ),
        _ => Check::ok("model", finding),
    }
}

/// The model's name, and the bytes of memory that it needs on the device.
fn opened(model: Option<&Path>, config: &Config, device: &Device) -> Result<(String, u64), String> {
    let model =
        open_model(model, None, || Ok(config.models_dir.clone())).map_err(|error| error.to_string())?;
    let needs = model.memory_needs(device).map_err(|error| error.to_string())?;
    Ok((model.name().to_owned(), needs.with_cpu(config.cpu).usual(2)))
}
