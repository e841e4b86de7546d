package import VarveSystem
private import SystemPackage

/// An image as a user names it, `PATH[:TAG]` or `PATH@DIGEST`: an image layout and a tag in it, or the digest of a manifest or
/// an index.
package struct ImageReference: Hashable, Sendable, CustomStringConvertible {
    package static let defaultTag = "latest"

    package let path: BytePath
    package let tag: String
    /// False if the tag is `latest` because none was written.
    package let isTagGiven: Bool
    /// The image is meant that has this digest, whatever the tag is.
    package let digest: Digest?

    /// An image by its digest.
    package init(path: BytePath, digest: Digest) throws(OCIError) {
        try self.init(path: path, tag: nil, digest: digest)
    }

    package init(path: BytePath, tag: String? = nil) throws(OCIError) {
        try self.init(path: path, tag: tag, digest: nil)
    }

    /// A tag that stands in the index of a layout, whatever it is made of: others may have written it.
    init(found tag: String, in layout: ImageLayout) {
        path = layout.path
        self.tag = tag
        isTagGiven = true
        digest = nil
    }

    private init(path: BytePath, tag: String?, digest: Digest?) throws(OCIError) {
        guard !path.isEmpty else {
            throw .usage(
                "the image reference has no path: write PATH or PATH:TAG, PATH being an OCI image layout")
        }
        if let tag { try Self.checkTag(tag) }
        self.path = path
        self.tag = tag ?? Self.defaultTag
        isTagGiven = tag != nil
        self.digest = digest
    }

    /// The tag to set or remove. Throws `usage` for a reference with a digest: what has a digest does not change.
    package func tagToChange() throws(OCIError) -> String {
        guard digest == nil else {
            throw .usage(
                "\"\(self)\" names an image by its digest, but a tag is to be changed: write \(path):TAG",
                subject: BytePath("\(self)"))
        }
        return tag
    }

    /// Splits at the last `@` if a digest follows it, else at the last colon behind the last slash. A path whose name holds a
    /// colon is written with its tag.
    package init(parsing text: BytePath) throws(OCIError) {
        let bytes = Array(text.bytes)
        if let at = bytes.lastIndex(of: UInt8(ascii: "@")),
            let digest = Digest(utf8: Array(bytes[(at + 1)...])),
            let path = BytePath(bytes[..<at])
        {
            try self.init(path: path, digest: digest)
            return
        }
        let nameStart = (bytes.lastIndex(of: UInt8(ascii: "/")) ?? -1) + 1
        guard let colon = bytes[nameStart...].lastIndex(of: UInt8(ascii: ":")) else {
            try self.init(path: text)
            return
        }
        try self.init(splitting: bytes, at: colon)
    }

    /// As `init(parsing:)`, except where that names no layout and an earlier colon does: tags may hold
    /// slashes and colons too (image-spec annotations.md), so `LAYOUT:debian/12:slim` is the tag
    /// `debian/12:slim`.
    ///
    /// Throws `usage` where no layout is meant but something that other tools know, and says how to make a layout of it.
    package static func locating(_ text: BytePath) throws(OCIError) -> ImageReference {
        let first = Result { () throws(OCIError) in try ImageReference(parsing: text) }
        if let found = inLayout(text, first) { return found }
        let bytes = Array(text.bytes)
        if let at = bytes.lastIndex(of: UInt8(ascii: "@")), let path = BytePath(bytes[..<at]), isLayout(path)
        {
            throw .usage(
                "\"\(BytePath.excerpt(bytes[(at + 1)...]))\" is no digest: it takes sha256: or sha512: and all of its lower-case hexadecimal digits",
                subject: text)
        }
        if let foreign = ForeignReference(text) {
            throw .usage(foreign.description, subject: text, remedy: foreign.remedy)
        }
        return try first.get()
    }

    /// Whether it names an image of a layout that is there.
    package static func namesLayout(_ text: BytePath) -> Bool {
        let bytes = Array(text.bytes)
        let at = bytes.lastIndex(of: UInt8(ascii: "@"))
        return inLayout(text, Result { () throws(OCIError) in try ImageReference(parsing: text) }) != nil
            || at.flatMap { BytePath(bytes[..<$0]) }.map(isLayout) == true
    }

    /// - Parameter first: what it means by the rule.
    private static func inLayout(_ text: BytePath, _ first: Result<ImageReference, OCIError>)
        -> ImageReference?
    {
        if case .success(let reference) = first, isLayout(reference.path) { return reference }
        let bytes = Array(text.bytes)
        for colon in bytes.indices where bytes[colon] == UInt8(ascii: ":") {
            guard let other = try? ImageReference(splitting: bytes, at: colon), isLayout(other.path) else {
                continue
            }
            return other
        }
        return nil
    }

    private init(splitting bytes: [UInt8], at colon: Int) throws(OCIError) {
        guard let path = BytePath(bytes[..<colon]) else {
            throw .usage("the image reference holds a NUL byte")
        }
        guard let tag = String(validating: bytes[(colon + 1)...], as: UTF8.self) else {
            throw .usage("the tag in \"\(BytePath.escape(bytes))\" is not valid UTF-8; \(Self.grammar)")
        }
        try self.init(path: path, tag: tag)
    }

    private static func isLayout(_ path: BytePath) -> Bool {
        (try? FileDescriptor.workingDirectory.status(of: path.appending("oci-layout"))) != nil
    }

    private static let grammar =
        "a tag is made of letters and digits, joined by single - . _ : @ + or by --, in parts separated by /"

    /// image-spec annotations.md, `org.opencontainers.image.ref.name`:
    ///
    ///     ref       ::= component ("/" component)*
    ///     component ::= alphanum (separator alphanum)*
    ///     alphanum  ::= [A-Za-z0-9]+
    ///     separator ::= [-._:@+] | "--"
    package static func isValidTag(_ tag: String) -> Bool {
        // How many separator characters stand since the last letter or digit; -1 at the start of a component.
        var separators = -1
        var isDash = false
        for byte in tag.utf8 {
            switch byte {
            case UInt8(ascii: "a")...UInt8(ascii: "z"), UInt8(ascii: "A")...UInt8(ascii: "Z"),
                UInt8(ascii: "0")...UInt8(ascii: "9"):
                separators = 0
            case UInt8(ascii: "/"):
                guard separators == 0 else { return false }
                separators = -1
            case UInt8(ascii: "-"), UInt8(ascii: "."), UInt8(ascii: "_"), UInt8(ascii: ":"),
                UInt8(ascii: "@"),
                UInt8(ascii: "+"):
                let dash = byte == UInt8(ascii: "-")
                guard separators == 0 || (separators == 1 && isDash && dash) else { return false }
                separators += 1
                isDash = dash
            default: return false
            }
        }
        return separators == 0
    }

    /// Throws `usage` for what can be no tag.
    package static func checkTag(_ tag: String) throws(OCIError) {
        guard isValidTag(tag) else {
            throw .usage("\"\(shown(tag))\" is no valid tag: \(grammar)", subject: BytePath(tag))
        }
    }

    package var description: String { digest.map { "\(path)@\($0)" } ?? "\(path):\(tag)" }
}

extension ImageReference {
    /// What to say where there is no layout of that name: not everybody who names one means one.
    ///
    /// - Parameter error: that of opening it.
    func isMissing(_ error: OCIError) -> OCIError {
        let name = path.string ?? ""
        if [".tar", ".tar.gz", ".tgz", ".tar.zst", ".tar.xz"].contains(where: name.hasSuffix) {
            return .notFound(
                "there is no archive at \(path), and no image layout", subject: path, remedy: .correctPath)
        }
        let isName = name.utf8.allSatisfy { byte in
            switch byte {
            case UInt8(ascii: "a")...UInt8(ascii: "z"), UInt8(ascii: "0")...UInt8(ascii: "9"),
                UInt8(ascii: "."), UInt8(ascii: "-"), UInt8(ascii: "_"), UInt8(ascii: "/"):
                true
            default: false
            }
        }
        guard isName, !name.hasPrefix("/"), !name.hasPrefix("."), !name.isEmpty else { return error }
        let image = digest.map { "\(name)@\($0)" } ?? (isTagGiven ? "\(name):\(tag)" : name)
        return .notFound(
            error.reason, subject: error.subject,
            remedy: .createLayoutOrName(path, image: "docker://" + image))
    }
}
