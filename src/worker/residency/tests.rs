//! Who gets room, and who is asked for it.

use super::*;

const NOW: Timestamp = Timestamp(1_000_000);

fn placement(needs: u64) -> Placement {
    Placement { device: Device::Cpu, needs, budget: Some(100) }
}

fn seats<const N: usize>(residency: &Residency) -> [Seat; N] {
    std::array::from_fn(|index| residency.seat(&EndpointId::new(index.to_string()), false))
}

fn nobody_listens() -> Residency {
    Residency::new(|| {})
}

#[test]
fn room_is_given_by_device_and_without_a_bound_where_there_is_none() {
    let residency = nobody_listens();
    let [a, b, c] = seats(&residency);
    assert_eq!(a.ask(&placement(100), NOW), Room::Granted);
    let elsewhere = Placement { device: Device::Cuda { index: 0, memory_gib: None }, ..placement(100) };
    assert_eq!(b.ask(&elsewhere, NOW), Room::Granted);
    assert_eq!(c.ask(&Placement { budget: None, ..placement(1000) }, NOW), Room::Granted);
    assert_eq!(residency.devices(), [Device::Cpu, elsewhere.device]);
}

#[test]
fn nobody_leaves_for_what_would_not_fit_all_the_same() {
    let residency = nobody_listens();
    let [idle, busy, large] = seats(&residency);
    for seat in [&idle, &busy] {
        assert_eq!(seat.ask(&placement(50), NOW), Room::Granted);
    }
    idle.set_busy(false, 50, NOW);
    assert_eq!(large.ask(&placement(80), NOW), Room::Later);
    assert!(!idle.is_wanted() && !busy.is_wanted());
    busy.set_busy(false, 50, NOW);
    assert_eq!(large.ask(&placement(80), NOW), Room::Later);
    assert!(idle.is_wanted() && busy.is_wanted());
    assert_eq!(large.ask(&placement(101), NOW), Room::Never { needs: 101, budget: 100 });
    assert!(!idle.is_wanted() && !busy.is_wanted());
}

#[test]
fn who_asks_first_is_served_first() {
    let residency = nobody_listens();
    let [holder, large, small] = seats(&residency);
    assert_eq!(holder.ask(&placement(60), NOW), Room::Granted);
    assert_eq!(large.ask(&placement(60), NOW), Room::Later);
    assert_eq!(small.ask(&placement(10), NOW), Room::Later, "or small ones would keep it out for ever");
    holder.leave();
    assert_eq!(small.ask(&placement(10), NOW), Room::Later);
    assert_eq!(large.ask(&placement(60), NOW), Room::Granted);
    assert_eq!(small.ask(&placement(10), NOW), Room::Granted);
}

#[test]
fn at_the_start_the_earlier_seats_are_served_first_whoever_asks_first() {
    let residency = nobody_listens();
    let [first, second, third] = ["0", "1", "2"].map(|name| residency.seat(&EndpointId::new(name), true));
    assert_eq!(second.ask_for_free(&placement(60), NOW), Some(Room::Later));
    assert_eq!(first.ask_for_free(&placement(60), NOW), Some(Room::Granted));
    assert_eq!(second.ask_for_free(&placement(60), NOW), None, "there is no room for it");
    assert_eq!(third.ask_for_free(&placement(40), NOW), Some(Room::Granted));
}

#[test]
fn everybody_is_woken_when_something_changed_and_only_then() {
    use std::sync::atomic::{AtomicU32, Ordering};
    let woken = Arc::new(AtomicU32::new(0));
    let count = Arc::clone(&woken);
    let residency = Residency::new(move || {
        count.fetch_add(1, Ordering::SeqCst);
    });
    let [holder, waiter] = seats(&residency);
    holder.ask(&placement(100), NOW);
    holder.set_busy(false, 100, NOW);
    let before = woken.load(Ordering::SeqCst);
    waiter.ask(&placement(100), NOW);
    assert_eq!(woken.load(Ordering::SeqCst), before + 1, "the holder is to leave");
    waiter.ask(&placement(100), NOW);
    assert_eq!(woken.load(Ordering::SeqCst), before + 1);
    holder.leave();
    assert_eq!(woken.load(Ordering::SeqCst), before + 2, "there is room");
}
