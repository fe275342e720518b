//! What must be true once everything has come to rest.

use crate::device::{Device, Segment, Told};
use crate::script;
use crate::store::{Mailbox, user_of};
use crate::world::World;
use whimbrel_protocol::Disagreement;
use whimbrel_protocol::frame::{EventBody, ResetReason};

/// Checks every promise; says the first that was broken.
pub fn all(world: &World, kind: script::World) -> Result<(), String> {
    let effects = &world.server.store.effects;
    if let Some((id, count)) = effects.iter().find(|(_, count)| **count != 1) {
        return Err(format!("command {id} took effect {count} times"));
    }
    for (no, device) in world.devices.iter().enumerate() {
        told(world, device, kind).map_err(|why| format!("process {no}: {why}"))?;
        commands(world, device).map_err(|why| format!("process {no}: {why}"))?;
        views(world, device).map_err(|why| format!("process {no}: {why}"))?;
    }
    Ok(())
}

/// Nobody is told of what cannot have happened.
fn told(world: &World, device: &Device, kind: script::World) -> Result<(), String> {
    for (_, told) in &device.store.told {
        let possible = match told {
            Told::Reset(ResetReason::Trimmed) => true,
            Told::Reset(ResetReason::OtherLog) => matches!(kind, script::World::OddServers | script::World::OddEverything),
            Told::Disagreement(Disagreement::AnotherOutbox { .. }) if world.overtaken.contains(&device.no) => true,
            Told::Disagreement(_) => kind != script::World::BadDays,
        };
        if !possible {
            return Err(format!("was told of {told:?}"));
        }
    }
    Ok(())
}

/// Every command took effect; or the server lost it when it was rolled back, and the application was told something then or later.
fn commands(world: &World, device: &Device) -> Result<(), String> {
    let store = &device.store;
    for id in &store.enqueued {
        let Some(known_in) = store.known.get(id) else { return Err(format!("command {id} has vanished")) };
        if world.server.store.effects.contains_key(id) {
            continue;
        }
        let lost_in = (known_in + 1..world.lives.len()).find(|life| !world.lives[*life].effects_at_start.contains_key(id));
        let Some(lost_in) = lost_in else { return Err(format!("command {id} is applied and has no effect")) };
        let named = |told: &Told| !matches!(told, Told::Reset(ResetReason::Trimmed));
        if !store.told.iter().any(|(life, told)| *life >= lost_in && named(told)) {
            return Err(format!("command {id} was lost in silence: {:?}", store.told));
        }
    }
    Ok(())
}

/// The device saw every entry once and in order, from where it began or was reset to.
fn views(world: &World, device: &Device) -> Result<(), String> {
    let user = user_of(device.no);
    let segments = &device.store.segments;
    for segment in segments {
        let present = segment.life + 1 == world.lives.len();
        let mailbox = if present { &world.server.store.mailboxes[user] } else { &world.lives[segment.life].mailboxes[user] };
        let at = view(segment, mailbox, device)?;
        if segments.last().is_some_and(|last| std::ptr::eq(last, segment)) && (at != mailbox.head() || !present) {
            return Err(format!("saw entries up to {at} of {}, in life {} of {}", mailbox.head(), segment.life, world.lives.len()));
        }
    }
    let resets = device.store.told.iter().filter(|(_, told)| matches!(told, Told::Reset(_))).count();
    if segments.len() > resets + 1 {
        return Err(format!("began {} times and was told of {resets} resets", segments.len()));
    }
    Ok(())
}

fn view(segment: &Segment, mailbox: &Mailbox, device: &Device) -> Result<u64, String> {
    let begin = segment.begin.0;
    if segment.snapshot.as_ref().is_some_and(|snapshot| *snapshot != mailbox.messages(begin)) {
        return Err(format!("the snapshot at {begin} is of another log"));
    }
    let mut at = begin;
    for (event, incarnation) in &segment.events {
        if event.seq.0 != at + 1 {
            return Err(format!("took event {} after {at}", event.seq));
        }
        at = event.through().0;
        let Some(last) = mailbox.entries.get(at as usize - 1).filter(|last| last.time == event.time) else {
            return Err(format!("took {event:?}, which is not what the mailbox holds"));
        };
        let skipped = matches!(event.body, EventBody::Skip(_));
        let fits = match last.view(device.no, *incarnation) {
            Some(body) => body == event.body,
            None => skipped,
        };
        let nothing =
            mailbox.entries[event.seq.0 as usize - 1..at as usize].iter().all(|entry| entry.view(device.no, *incarnation).is_none());
        if !fits || skipped && !nothing {
            return Err(format!("took {event:?} where the mailbox holds {last:?}"));
        }
    }
    Ok(at)
}
