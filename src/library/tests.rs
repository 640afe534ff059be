//! The library without a network: its tasks.

use std::sync::mpsc::channel;

use super::task::Outcome;
use super::*;
use crate::library::pull::too_large;

fn task(name: &str) -> Task {
    Task::new(Work::Pull, Kind::Model, name.to_owned())
}

fn wait(tasks: &Tasks, id: &str) -> Task {
    loop {
        match tasks.find(id) {
            Some(task) if matches!(task.status, Status::InProgress | Status::Cancelling) => {
                thread::yield_now();
            }
            ended => return ended.unwrap(),
        }
    }
}

#[test]
fn one_task_runs_at_a_time_and_hears_that_it_is_cancelled() {
    let tasks = Tasks::default();
    let first = tasks.begin(task("a/b"), |handle| {
        while !handle.is_cancelled() {
            thread::yield_now();
        }
        Outcome::Cancelled
    });
    let id = first.unwrap().id;
    let busy = tasks.begin(task("c/d"), |_| Outcome::Done(String::new())).unwrap_err();
    assert!(matches!(busy, LibraryError::Busy { name } if name == "a/b"));
    assert_eq!(tasks.cancel(&id).unwrap().status, Status::Cancelling);
    assert_eq!(wait(&tasks, &id).status, Status::Cancelled);
    assert!(tasks.cancel("no").is_none());
    assert!(tasks.begin(task("c/d"), |_| Outcome::Done(String::new())).is_ok());
}

#[test]
fn a_task_that_panics_has_failed_and_the_next_one_runs() {
    let tasks = Tasks::default();
    let id = tasks.begin(task("a/b"), |_| panic!("a test")).unwrap().id;
    let ended = wait(&tasks, &id);
    assert_eq!(ended.status, Status::Failed);
    assert_eq!(ended.error.as_deref(), Some("Internal server error: the server's log has the details."));
    let (send, receive) = channel();
    tasks.begin(task("c/d"), move |_| Outcome::Done(receive.recv().unwrap())).unwrap();
    send.send("done".to_owned()).unwrap();
    let last = wait(&tasks, &tasks.last().unwrap().id);
    assert_eq!((last.status, last.note.as_deref()), (Status::Completed, Some("done")));
}

#[test]
fn only_the_last_tasks_are_remembered() {
    let tasks = Tasks::default();
    let ids: Vec<_> = (0..25)
        .map(|number| {
            let id = tasks.begin(task(&number.to_string()), |_| Outcome::Done(String::new())).unwrap().id;
            wait(&tasks, &id).id
        })
        .collect();
    assert!(tasks.find(&ids[4]).is_none() && tasks.find(&ids[5]).is_some());
}

#[test]
fn an_error_becomes_a_sentence_without_paths() {
    let shown = |error: HubError| refused(error).to_string();
    let path = PathBuf::from("/secret/place");
    let disk = HubError::Disk { path: path.clone(), source: std::io::Error::other("a test") };
    assert_eq!(shown(disk), "The server cannot use its folder of models: its log says why.");
    let full = HubError::NoSpace {
        name: "org/name".to_owned(),
        dir: path,
        needed: "2 GB".to_owned(),
        free: "1 GB".to_owned(),
    };
    assert_eq!(shown(full), "org/name needs 2 GB more, but the disk has only 1 GB free.");
    let refused = HubError::Refused("it is a model of another family".to_owned());
    assert_eq!(sentence(&refused), "It is a model of another family.");
}

#[test]
fn a_pull_is_bounded_and_leaves_room_on_the_disk() {
    assert_eq!(too_large(16 << 30, Some(1 << 30)), None);
    assert_eq!(too_large(16 << 30, None), None, "some systems do not tell");
    let reason = too_large((16 << 30) + 1, Some(1 << 40)).unwrap();
    assert_eq!(reason, "it is larger than 17.2 GB, which is more than any model that this server draws with");
    let reason = too_large(0, Some((1 << 30) - 1)).unwrap();
    assert!(reason.contains("only 1.1 GB free, and the last 1.1 GB are for its jobs"), "{reason}");
}
