//! Label and field selectors: apimachinery's grammar and error texts.

mod fields;
mod labels;
#[cfg(test)]
mod tests;
mod validation;

pub(crate) use fields::{FieldSelector, ObjectFields};
pub(crate) use labels::LabelSelector;

use crate::resource::Item;

/// Checks the text of a label selector, for programs that hand one on. The error is what apimachinery says.
pub fn check_label_selector(text: &str) -> Result<(), String> {
    LabelSelector::parse(text).map(drop)
}

/// Which objects of a list are wanted.
#[derive(Debug, Clone, Default)]
pub(crate) struct Selection {
    pub(crate) labels: LabelSelector,
    pub(crate) fields: ObjectFields,
}

impl Selection {
    /// How many requirements are held against an object at most.
    pub(crate) fn requirements(&self) -> usize {
        self.fields.len() + self.labels.len()
    }

    /// Whether the object is wanted. Allocates nothing.
    pub(crate) fn matches(&self, item: &dyn Item) -> bool {
        self.fields.matches(item) && self.labels.matches(|key| item.label(key))
    }
}
