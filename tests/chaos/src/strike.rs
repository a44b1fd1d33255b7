//! A strike at a node that does not happen if it would cost both members' RAM ([`crate::guard`]).

use std::time::Instant;

use anyhow::Result;

use crate::guard::Guard;
use crate::world::{Order, Program, San, World};

/// Whether it was done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Strike {
    /// Yes.
    Done,
    /// No, and why.
    Spared(&'static str),
}

/// Gives a node an order that may cost it its RAM.
///
/// Who is frozen fences nobody. So it is frozen first, then the other one is looked at: if that one lives now, it goes on
/// living, and has everything that the struck one has.
///
/// # Errors
/// If the world can't.
pub fn strike(world: &mut impl World, guard: &mut Guard, san: San, order: Order) -> Result<Strike> {
    let (victim, other) = (Program::Node(san), Program::Node(san.other()));
    if !world.runs(victim) || world.is_dying(victim) {
        return Ok(Strike::Spared("it does not run"));
    }
    if guard.is_struck(san) {
        return Ok(Strike::Spared("it is struck already"));
    }
    if !guard.may_strike(san) {
        return Ok(Strike::Spared("it may be the only one that has what was completed"));
    }
    world.order(victim, Order::Freeze)?;
    if !guard.is_struck(san.other()) && (!world.runs(other) || world.is_dying(other)) {
        world.order(victim, Order::Thaw)?;
        return Ok(Strike::Spared("the other one has just died"));
    }
    match order {
        Order::Freeze => {}
        Order::Die => world.order(victim, Order::Die)?,
        Order::Leave | Order::Thaw => {
            world.order(victim, order)?;
            world.order(victim, Order::Thaw)?;
        }
    }
    guard.struck(san, Instant::now());
    Ok(Strike::Done)
}
