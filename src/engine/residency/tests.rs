//! Who is given memory, and who is asked to unload.

use super::*;

const NOW: Timestamp = Timestamp(1_000_000);

fn placement(needs: u64) -> Placement {
    Placement { device: Device::Cpu, needs, budget: Some(100) }
}

fn slots<const N: usize>(residency: &Residency) -> [MemorySlot; N] {
    std::array::from_fn(|index| residency.slot(&EndpointId::new(index.to_string()), false))
}

fn without_workers() -> Residency {
    Residency::new(|| {})
}

#[test]
fn each_device_has_its_own_memory_and_no_limit_without_a_budget() {
    let residency = without_workers();
    let [a, b, c] = slots(&residency);
    assert_eq!(a.request(&placement(100), NOW), Grant::Now);
    let elsewhere = Placement { device: Device::Cuda { index: 0, memory_gib: None }, ..placement(100) };
    assert_eq!(b.request(&elsewhere, NOW), Grant::Now);
    assert_eq!(c.request(&Placement { budget: None, ..placement(1000) }, NOW), Grant::Now);
    assert_eq!(residency.devices(), [Device::Cpu, elsewhere.device]);
}

#[test]
fn no_engine_is_asked_to_unload_if_that_would_not_free_enough() {
    let residency = without_workers();
    let [idle, busy, large] = slots(&residency);
    for slot in [&idle, &busy] {
        assert_eq!(slot.request(&placement(50), NOW), Grant::Now);
    }
    idle.set_busy(false, NOW);
    assert_eq!(large.request(&placement(80), NOW), Grant::Later);
    assert!(!idle.must_unload() && !busy.must_unload());
    busy.set_busy(false, NOW);
    assert_eq!(large.request(&placement(80), NOW), Grant::Later);
    assert!(idle.must_unload() && busy.must_unload());
    assert_eq!(large.request(&placement(101), NOW), Grant::Never { needs: 101, budget: 100 });
    assert!(!idle.must_unload() && !busy.must_unload());
}

#[test]
fn a_busy_engine_stays_for_its_time_from_when_another_first_asked() {
    let residency = without_workers();
    let [holder, waiter] = slots(&residency);
    assert_eq!(holder.request(&placement(100), NOW), Grant::Now);
    let first_asked = NOW + 100 * BUSY_STAY;
    assert_eq!(waiter.request(&placement(100), first_asked), Grant::Later);
    assert!(!holder.must_unload(), "it was loaded long ago, and nobody has waited yet");
    let almost = first_asked + BUSY_STAY - Duration::from_millis(1);
    assert_eq!(waiter.request(&placement(100), almost), Grant::Later);
    assert!(!holder.must_unload());
    assert_eq!(waiter.request(&placement(100), first_asked + BUSY_STAY), Grant::Later);
    assert!(holder.must_unload());
}

#[test]
fn a_busy_engine_stays_for_its_time_after_it_was_loaded_however_long_another_has_waited() {
    let residency = without_workers();
    let [first, second, third] = slots(&residency);
    assert_eq!(first.request(&placement(100), NOW), Grant::Now);
    for slot in [&second, &third] {
        assert_eq!(slot.request(&placement(100), NOW), Grant::Later);
    }
    first.unloaded(0);
    let loaded_at = NOW + 2 * BUSY_STAY;
    assert_eq!(second.request(&placement(100), loaded_at), Grant::Now);
    assert_eq!(third.request(&placement(100), loaded_at), Grant::Later);
    assert!(!second.must_unload());
    assert_eq!(third.request(&placement(100), loaded_at + BUSY_STAY), Grant::Later);
    assert!(second.must_unload());
}

#[test]
fn a_slot_that_stopped_waiting_begins_to_wait_anew() {
    let residency = without_workers();
    let [holder, waiter] = slots(&residency);
    assert_eq!(holder.request(&placement(100), NOW), Grant::Now);
    assert_eq!(waiter.request(&placement(100), NOW), Grant::Later);
    waiter.withdraw();
    assert_eq!(waiter.request(&placement(100), NOW + BUSY_STAY), Grant::Later);
    assert!(!holder.must_unload());
}

#[test]
fn the_slot_that_asked_first_is_served_first() {
    let residency = without_workers();
    let [holder, large, small] = slots(&residency);
    assert_eq!(holder.request(&placement(60), NOW), Grant::Now);
    assert_eq!(large.request(&placement(60), NOW), Grant::Later);
    assert_eq!(small.request(&placement(10), NOW), Grant::Later, "or small ones would keep it out for ever");
    holder.unloaded(0);
    assert_eq!(small.request(&placement(10), NOW), Grant::Later);
    assert_eq!(large.request(&placement(60), NOW), Grant::Now);
    assert_eq!(small.request(&placement(10), NOW), Grant::Now);
}

#[test]
fn at_the_start_slots_are_served_in_the_order_in_which_they_were_made() {
    let residency = without_workers();
    let [first, second, third] = ["0", "1", "2"].map(|name| residency.slot(&EndpointId::new(name), true));
    assert_eq!(second.request_free(&placement(60), NOW), Some(Grant::Later));
    assert_eq!(first.request_free(&placement(60), NOW), Some(Grant::Now));
    assert_eq!(second.request_free(&placement(60), NOW), None, "too little is free");
    assert_eq!(third.request_free(&placement(40), NOW), Some(Grant::Now));
}

#[test]
fn spares_leave_before_engines_and_the_least_recently_used_before_others() {
    let residency = without_workers();
    let [one, two, new] = slots(&residency);
    for slot in [&one, &two] {
        assert_eq!(slot.request(&placement(30), NOW), Grant::Now);
        slot.set_busy(false, NOW);
    }
    let start = Instant::now();
    let spare = |seconds| Spare { bytes: 10, used_at: start + Duration::from_secs(seconds) };
    assert_eq!((one.grow(50, NOW), two.grow(40, NOW)), (Grant::Now, Grant::Now));
    one.hold(50, vec![spare(1), spare(3)]);
    two.hold(40, vec![spare(2)]);
    assert_eq!(new.request(&placement(25), NOW), Grant::Later);
    assert_eq!((one.must_drop(), two.must_drop()), (10, 10), "15 are missing");
    assert!(!one.must_unload() && !two.must_unload());
    assert_eq!(new.request(&placement(50), NOW), Grant::Later);
    assert!(one.must_unload() && !two.must_unload(), "all spares are too few");
    assert_eq!(two.must_drop(), 0, "the engine is enough");
    new.withdraw();
    assert!(!one.must_unload());
}

#[test]
fn an_engine_grows_within_the_budget_and_gives_up_its_own_spares_for_it() {
    let residency = without_workers();
    let [holder, growing] = slots(&residency);
    for slot in [&holder, &growing] {
        assert_eq!(slot.request(&placement(40), NOW), Grant::Now);
    }
    assert_eq!(growing.grow(60, NOW), Grant::Now);
    assert_eq!(growing.grow(50, NOW), Grant::Now, "it holds more already");
    growing.hold(60, vec![Spare { bytes: 20, used_at: Instant::now() }]);
    assert_eq!(growing.grow(70, NOW), Grant::Later);
    assert_eq!((growing.must_drop(), holder.must_unload()), (20, false));
    growing.hold(40, Vec::new());
    assert_eq!(growing.grow(50, NOW), Grant::Now);
    assert_eq!(growing.grow(80, NOW), Grant::Later);
    assert!(!holder.must_unload(), "it has jobs");
    assert_eq!(growing.grow(80, NOW + BUSY_STAY), Grant::Later);
    assert!(holder.must_unload());
    holder.unloaded(30);
    assert_eq!(growing.grow(80, NOW + BUSY_STAY), Grant::Later, "some of it is still in use");
    holder.unloaded(0);
    assert_eq!(growing.grow(80, NOW + BUSY_STAY), Grant::Now);
}

#[test]
fn workers_are_woken_when_something_changed_and_only_then() {
    use std::sync::atomic::{AtomicU32, Ordering};
    let woken = Arc::new(AtomicU32::new(0));
    let count = Arc::clone(&woken);
    let residency = Residency::new(move || {
        count.fetch_add(1, Ordering::SeqCst);
    });
    let [holder, waiter] = slots(&residency);
    holder.request(&placement(100), NOW);
    holder.set_busy(false, NOW);
    let before = woken.load(Ordering::SeqCst);
    waiter.request(&placement(100), NOW);
    assert_eq!(woken.load(Ordering::SeqCst), before + 1, "the holder is to unload");
    waiter.request(&placement(100), NOW);
    assert_eq!(woken.load(Ordering::SeqCst), before + 1);
    holder.unloaded(0);
    assert_eq!(woken.load(Ordering::SeqCst), before + 2, "there is room");
}
