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
    /// Anything.
    Any,
    /// A list.
    Array(&'static Type),
    /// One of several words.
    Enum(&'static EnumInfo),
    /// An object with these members.
    Struct(&'static StructInfo),
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
    /// The members in their order.
    pub members: &'static [MemberInfo],
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
