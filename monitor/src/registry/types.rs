//! Descriptions of what goes over the wire, from which introspection and help are made.

/// The type of a value.
#[derive(Clone, Copy, Debug)]
pub enum Type {
    /// `str`
    String,
    /// `int`
    Integer,
    /// `number`
    Number,
    /// `bool`
    Boolean,
    /// `null`
    Null,
    /// Anything.
    Any,
    /// A list.
    Array(&'static Type),
    /// One of several words.
    Enum(&'static EnumInfo),
    /// An object with these members.
    Struct(&'static StructInfo),
    /// One of several types.
    Alternate(&'static AlternateInfo),
    /// A type that has this one among its own members: named by a function, since constants cannot refer to
    /// each other.
    Later(fn() -> Type),
}

/// A choice between types, told apart by what JSON makes of them.
pub struct AlternateInfo {
    /// QAPI's name of the type.
    pub name: &'static str,
    /// Documentation.
    pub doc: &'static str,
    /// The types.
    pub members: &'static [Type],
}

impl std::fmt::Debug for AlternateInfo {
    /// Without the members: an alternate may be among the members of one of them.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("AlternateInfo").field(&self.name).finish()
    }
}

/// A set of words.
#[derive(Debug)]
pub struct EnumInfo {
    /// QAPI's name of the type.
    pub name: &'static str,
    /// Documentation.
    pub doc: &'static str,
    /// The words and their documentation.
    pub values: &'static [(&'static str, &'static str)],
}

/// A set of members.
#[derive(Debug)]
pub struct StructInfo {
    /// QAPI's name of the type; empty for one without members.
    pub name: &'static str,
    /// Documentation.
    pub doc: &'static str,
    /// The members in their order; those that every variant has, where there are variants.
    pub members: &'static [MemberInfo],
    /// More members, depending on one of them.
    pub variants: Option<VariantsInfo>,
}

/// Members that depend on the value of another one.
#[derive(Debug)]
pub struct VariantsInfo {
    /// The member that decides, an enumeration.
    pub tag: &'static str,
    /// The members for each of its words.
    pub cases: &'static [(&'static str, &'static StructInfo)],
}

/// A member of an object.
#[derive(Debug)]
pub struct MemberInfo {
    /// The name on the wire.
    pub name: &'static str,
    /// Documentation.
    pub doc: &'static str,
    /// The type.
    pub ty: Type,
    /// Whether it may be absent.
    pub optional: bool,
}

/// An event.
#[derive(Debug)]
pub struct EventInfo {
    /// The name on the wire.
    pub name: &'static str,
    /// The members of its `data`, and its documentation.
    pub data: &'static StructInfo,
}

/// A member that must be there, for descriptions by hand.
pub(crate) const fn required(name: &'static str, doc: &'static str, ty: Type) -> MemberInfo {
    MemberInfo { name, doc, ty, optional: false }
}

/// A member that may be absent.
pub(crate) const fn optional(name: &'static str, doc: &'static str, ty: Type) -> MemberInfo {
    MemberInfo { name, doc, ty, optional: true }
}

/// A set of members without variants.
pub(crate) const fn members(
    name: &'static str,
    doc: &'static str,
    members: &'static [MemberInfo],
) -> StructInfo {
    StructInfo { name, doc, members, variants: None }
}
