//! One declaration for a type's Rust form, its description, its reading and its writing.

/// How a type that is a [`QapiStruct`](crate::registry::QapiStruct) is read and written: as an
/// object of its members.
#[doc(hidden)]
#[macro_export]
macro_rules! qapi_object {
    ($name:ident) => {
        impl $crate::registry::Qapi for $name {
            const TYPE: $crate::registry::Type =
                $crate::registry::Type::Struct(<Self as $crate::registry::QapiStruct>::INFO);

            fn read(
                value: $crate::registry::Value,
                at: $crate::registry::At<'_>,
            ) -> ::std::result::Result<Self, $crate::QmpError> {
                match value {
                    $crate::registry::Value::Object(members) => {
                        <Self as $crate::registry::QapiStruct>::read_members(members, at)
                    }
                    _ => Err($crate::registry::mistyped(at, "object")),
                }
            }

            fn write(&self, writer: &mut $crate::wire::Writer) {
                writer.begin_object();
                <Self as $crate::registry::QapiStruct>::write_members(self, writer);
                writer.end_object();
            }
        }
    };
}

/// Declares an object type whose members are read by what they are for, not here: they are kept as
/// they came. `$info` describes them.
#[macro_export]
macro_rules! qapi_open_struct {
    (
        $(#[doc = $doc:literal])*
        pub struct $name:ident = $info:expr;
    ) => {
        $(#[doc = $doc])*
        #[derive(Clone, Debug, PartialEq)]
        pub struct $name(pub $crate::registry::Members);

        $crate::qapi_object!($name);

        impl $crate::registry::QapiStruct for $name {
            const INFO: &'static $crate::registry::StructInfo = &$info;

            fn take_members(
                members: &mut $crate::registry::Members,
                _: $crate::registry::At<'_>,
            ) -> ::std::result::Result<Self, $crate::QmpError> {
                Ok(Self(::std::mem::take(members)))
            }

            fn write_members(&self, writer: &mut $crate::wire::Writer) {
                for (name, value) in &self.0 {
                    $crate::registry::Qapi::write_member(value, name, writer);
                }
            }
        }
    };
}

/// Declares an object type: a Rust struct whose members have a name on the wire and
/// documentation, both of which go into its description.
///
/// ```
/// monitor::qapi_struct! {
///     /// Where and how much.
///     pub struct Range {
///         /// First byte.
///         pub start: u64 = "start",
///         /// Bytes; to the end when absent.
///         pub length: Option<u64> = "length",
///     }
/// }
/// ```
#[macro_export]
macro_rules! qapi_struct {
    (
        $(#[doc = $doc:literal])*
        pub struct $name:ident {
            $(
                $(#[doc = $member_doc:literal])*
                pub $member:ident: $ty:ty = $wire:literal,
            )*
        }
    ) => {
        $(#[doc = $doc])*
        #[allow(clippy::struct_field_names, reason = "the protocol names the members")]
        #[derive(Clone, Debug, PartialEq)]
        pub struct $name {
            $(
                $(#[doc = $member_doc])*
                pub $member: $ty,
            )*
        }

        $crate::qapi_object!($name);

        impl $crate::registry::QapiStruct for $name {
            const INFO: &'static $crate::registry::StructInfo = &$crate::registry::StructInfo {
                name: ::std::stringify!($name),
                doc: ::std::concat!($($doc, "\n",)*),
                members: &[
                    $(
                        $crate::registry::MemberInfo {
                            name: $wire,
                            doc: ::std::concat!($($member_doc, "\n",)*),
                            ty: <$ty as $crate::registry::Qapi>::TYPE,
                            optional: <$ty as $crate::registry::Qapi>::OPTIONAL,
                        },
                    )*
                ],
                variants: None,
            };

            #[allow(unused_variables, reason = "a struct may have no members")]
            fn take_members(
                members: &mut $crate::registry::Members,
                at: $crate::registry::At<'_>,
            ) -> ::std::result::Result<Self, $crate::QmpError> {
                Ok(Self {
                    $( $member: $crate::registry::take_member(members, $wire, at)?, )*
                })
            }

            #[allow(unused_variables, reason = "a struct may have no members")]
            fn write_members(&self, writer: &mut $crate::wire::Writer) {
                $( $crate::registry::Qapi::write_member(&self.$member, $wire, writer); )*
            }
        }
    };
}

/// Declares an enumeration: a Rust enum whose variants have a word on the wire and documentation.
#[macro_export]
macro_rules! qapi_enum {
    (
        $(#[doc = $doc:literal])*
        pub enum $name:ident {
            $(
                $(#[doc = $variant_doc:literal])*
                $variant:ident = $wire:literal,
            )*
        }
    ) => {
        $(#[doc = $doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum $name {
            $(
                $(#[doc = $variant_doc])*
                $variant,
            )*
        }

        impl $name {
            /// The word on the wire.
            pub const fn name(self) -> &'static str {
                match self {
                    $( Self::$variant => $wire, )*
                }
            }
        }

        impl ::std::fmt::Display for $name {
            fn fmt(&self, f: &mut ::std::fmt::Formatter<'_>) -> ::std::fmt::Result {
                f.write_str(self.name())
            }
        }

        impl $crate::registry::Qapi for $name {
            const TYPE: $crate::registry::Type =
                $crate::registry::Type::Enum(&$crate::registry::EnumInfo {
                    name: ::std::stringify!($name),
                    doc: ::std::concat!($($doc, "\n",)*),
                    values: &[
                        $( ($wire, ::std::concat!($($variant_doc, "\n",)*)), )*
                    ],
                });

            fn read(
                value: $crate::registry::Value,
                at: $crate::registry::At<'_>,
            ) -> ::std::result::Result<Self, $crate::QmpError> {
                let $crate::registry::Value::String(word) = value else {
                    return Err($crate::registry::mistyped(at, "string"));
                };
                match word.as_str() {
                    $( $wire => Ok(Self::$variant), )*
                    _ => Err($crate::registry::unknown_word(at, &word)),
                }
            }

            fn write(&self, writer: &mut $crate::wire::Writer) {
                writer.str(self.name());
            }
        }
    };
}

/// Declares a union: an object with a member of an enumeration, and further members that depend on
/// its value. The variants are called as those of the enumeration; each holds a `qapi_struct!`.
#[macro_export]
macro_rules! qapi_union {
    (
        $(#[doc = $doc:literal])*
        pub enum $name:ident by $kind:ident = $tag:literal {
            $( $variant:ident($ty:ty), )*
        }
    ) => {
        $(#[doc = $doc])*
        #[derive(Clone, Debug, PartialEq)]
        pub enum $name {
            $( #[doc = ::std::concat!("[`", ::std::stringify!($ty), "`]")] $variant($ty), )*
        }

        impl $name {
            /// Which variant it is.
            pub const fn kind(&self) -> $kind {
                match self {
                    $( Self::$variant(_) => $kind::$variant, )*
                }
            }
        }

        $crate::qapi_object!($name);

        impl $crate::registry::QapiStruct for $name {
            const INFO: &'static $crate::registry::StructInfo = &$crate::registry::StructInfo {
                name: ::std::stringify!($name),
                doc: ::std::concat!($($doc, "\n",)*),
                members: &[$crate::registry::MemberInfo {
                    name: $tag,
                    doc: " Which variant it is.\n",
                    ty: <$kind as $crate::registry::Qapi>::TYPE,
                    optional: false,
                }],
                variants: Some($crate::registry::VariantsInfo {
                    tag: $tag,
                    cases: &[
                        $( (
                            $kind::$variant.name(),
                            <$ty as $crate::registry::QapiStruct>::INFO,
                        ), )*
                    ],
                }),
            };

            fn take_members(
                members: &mut $crate::registry::Members,
                at: $crate::registry::At<'_>,
            ) -> ::std::result::Result<Self, $crate::QmpError> {
                match $crate::registry::take_member(members, $tag, at)? {
                    $( $kind::$variant => {
                        <$ty as $crate::registry::QapiStruct>::take_members(members, at)
                            .map(Self::$variant)
                    } )*
                }
            }

            fn write_members(&self, writer: &mut $crate::wire::Writer) {
                $crate::registry::Qapi::write_member(&self.kind(), $tag, writer);
                match self {
                    $( Self::$variant(data) => {
                        <$ty as $crate::registry::QapiStruct>::write_members(data, writer);
                    } )*
                }
            }
        }
    };
}
