//! A performance goal: a bound and the measured value.

use crate::statistics::number;

/// A goal and its measured value.
#[derive(Clone, Debug)]
pub struct Goal {
    /// The measured quantity.
    pub what: String,
    /// The bound.
    bound: Bound,
    /// The median; `None` if it was not measured.
    pub measured: Option<f64>,
}

#[derive(Clone, Copy, Debug)]
enum Bound {
    AtLeast(f64),
    AtMost(f64),
}

impl Goal {
    /// The measured value must not be less than the bound.
    pub fn at_least(what: &str, bound: f64, measured: Option<f64>) -> Self {
        Goal { what: what.to_owned(), bound: Bound::AtLeast(bound), measured }
    }

    /// The measured value must not be greater than the bound.
    pub fn at_most(what: &str, bound: f64, measured: Option<f64>) -> Self {
        Goal { what: what.to_owned(), bound: Bound::AtMost(bound), measured }
    }

    /// The bound in words.
    pub fn bound_in_words(&self) -> String {
        match self.bound {
            Bound::AtLeast(bound) => format!("at least {}", number(bound)),
            Bound::AtMost(bound) => format!("at most {}", number(bound)),
        }
    }

    /// Whether the goal is met; `None` if it was not measured.
    pub fn is_met(&self) -> Option<bool> {
        self.measured.map(|measured| match self.bound {
            Bound::AtLeast(bound) => measured >= bound,
            Bound::AtMost(bound) => measured <= bound,
        })
    }
}
