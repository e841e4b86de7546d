import CLinux
import Glibc
package import SystemPackage

/// An extended attribute: a name with its namespace (`user.`, `security.` …, xattr(7)) and any bytes.
package struct ExtendedAttribute: Hashable, Sendable {
    package var name: BytePath
    package var value: [UInt8]
    package init(name: BytePath, value: [UInt8]) {
        self.name = name
        self.value = value
    }
}

extension FileDescriptor {
    /// The path by which the extended attributes of `name` in this directory are reached: the calls have no `*at`
    /// form before Linux 6.13, and `l*xattr` follows only the link in /proc, never the last component.
    private func procPath(of name: BytePath) -> BytePath {
        BytePath("/proc/self/fd/\(rawValue)").appending(name)
    }

    /// flistxattr(2), in byte order. The descriptor may not be `O_PATH`.
    package func extendedAttributeNames() throws(Errno) -> [BytePath] {
        try unsafe Self.names { buffer, size in unsafe flistxattr(rawValue, buffer, size) }
    }

    /// llistxattr(2) of a name in this directory, in byte order.
    package func extendedAttributeNames(of name: BytePath) throws(Errno) -> [BytePath] {
        let path = procPath(of: name)
        return try unsafe Self.names { buffer, size in
            unsafe path.withCString { unsafe llistxattr($0, buffer, size) }
        }
    }

    /// fgetxattr(2); nil if the attribute is not there.
    package func extendedAttribute(_ attribute: BytePath) throws(Errno) -> [UInt8]? {
        try unsafe Self.value { buffer, size in
            unsafe attribute.withCString { unsafe fgetxattr(rawValue, $0, buffer, size) }
        }
    }

    /// lgetxattr(2) of a name in this directory; nil if the attribute is not there.
    package func extendedAttribute(_ attribute: BytePath, of name: BytePath) throws(Errno) -> [UInt8]? {
        let path = procPath(of: name)
        return try unsafe Self.value { buffer, size in
            unsafe path.withCString { path in
                unsafe attribute.withCString { unsafe lgetxattr(path, $0, buffer, size) }
            }
        }
    }

    /// All attributes of a name in this directory, in byte order of their names.
    package func extendedAttributes(of name: BytePath) throws(Errno) -> [ExtendedAttribute] {
        var result = [ExtendedAttribute]()
        for attribute in try extendedAttributeNames(of: name) {
            // One that vanished between the two calls is not there.
            guard let value = try extendedAttribute(attribute, of: name) else { continue }
            result.append(ExtendedAttribute(name: attribute, value: value))
        }
        return result
    }

    /// All attributes of what a descriptor that is open for nothing (O_PATH) stands for, in byte order of their names; of a symbolic
    /// link its own. fgetxattr(2) takes no such descriptor, getxattr(2) of its link in procfs does.
    package func extendedAttributesOfHandle() throws(Errno) -> [ExtendedAttribute] {
        let path = BytePath("/proc/self/fd/\(rawValue)")
        let names = try unsafe Self.names { buffer, size in
            unsafe path.withCString { unsafe listxattr($0, buffer, size) }
        }
        var result = [ExtendedAttribute]()
        for name in names {
            let value = try unsafe Self.value { buffer, size in
                unsafe path.withCString { path in
                    unsafe name.withCString { unsafe getxattr(path, $0, buffer, size) }
                }
            }
            guard let value else { continue }
            result.append(ExtendedAttribute(name: name, value: value))
        }
        return result
    }

    /// All attributes of this open file, in byte order of their names.
    package func extendedAttributes() throws(Errno) -> [ExtendedAttribute] {
        var result = [ExtendedAttribute]()
        for attribute in try extendedAttributeNames() {
            guard let value = try extendedAttribute(attribute) else { continue }
            result.append(ExtendedAttribute(name: attribute, value: value))
        }
        return result
    }

    /// fsetxattr(2).
    package func setExtendedAttribute(_ attribute: ExtendedAttribute) throws(Errno) {
        let result = unsafe attribute.name.withCString { name in
            unsafe attribute.value.withUnsafeBytes {
                unsafe fsetxattr(rawValue, name, $0.baseAddress, $0.count, 0)
            }
        }
        if result != 0 { throw Errno(rawValue: errno) }
    }

    /// lsetxattr(2) of a name in this directory.
    package func setExtendedAttribute(_ attribute: ExtendedAttribute, of name: BytePath) throws(Errno) {
        let path = procPath(of: name)
        let result = unsafe path.withCString { path in
            unsafe attribute.name.withCString { name in
                unsafe attribute.value.withUnsafeBytes {
                    unsafe lsetxattr(path, name, $0.baseAddress, $0.count, 0)
                }
            }
        }
        if result != 0 { throw Errno(rawValue: errno) }
    }

    /// fremovexattr(2).
    package func removeExtendedAttribute(_ attribute: BytePath) throws(Errno) {
        let result = unsafe attribute.withCString { unsafe fremovexattr(rawValue, $0) }
        if result != 0 { throw Errno(rawValue: errno) }
    }

    /// lremovexattr(2) of a name in this directory.
    package func removeExtendedAttribute(_ attribute: BytePath, of name: BytePath) throws(Errno) {
        let path = procPath(of: name)
        let result = unsafe path.withCString { path in
            unsafe attribute.withCString { unsafe lremovexattr(path, $0) }
        }
        if result != 0 { throw Errno(rawValue: errno) }
    }

    private static func names(
        _ call: (UnsafeMutablePointer<CChar>?, Int) -> Int
    ) throws(Errno) -> [BytePath] {
        guard
            let list = try unsafe value({ buffer, size in
                unsafe call(buffer?.assumingMemoryBound(to: CChar.self), size)
            })
        else { return [] }
        return list.split(separator: 0).compactMap { BytePath($0) }.sorted()
    }

    /// Calls with a buffer on the stack first, and with one of the size that the kernel names when that is too small.
    private static func value(_ call: (UnsafeMutableRawPointer?, Int) -> Int) throws(Errno) -> [UInt8]? {
        let small: Result<[UInt8]?, Errno> = unsafe withUnsafeTemporaryAllocation(
            byteCount: 256, alignment: 8
        ) { buffer in
            let count = unsafe call(buffer.baseAddress, buffer.count)
            if count >= 0 { return .success(unsafe Array(buffer[..<count])) }
            return errno == ENODATA ? .success(nil) : .failure(Errno(rawValue: errno))
        }
        do throws(Errno) {
            return try small.get()
        } catch .outOfRange {
            // ERANGE: larger than the buffer.
        }
        while true {
            let size = call(nil, 0)
            if size < 0 {
                if errno == ENODATA { return nil }
                throw Errno(rawValue: errno)
            }
            var bytes = [UInt8](repeating: 0, count: size)
            let count = unsafe bytes.withUnsafeMutableBytes { unsafe call($0.baseAddress, $0.count) }
            if count >= 0 { return Array(bytes.prefix(count)) }
            if errno == ENODATA { return nil }
            // ERANGE: it grew between the two calls.
            if errno != ERANGE { throw Errno(rawValue: errno) }
        }
    }
}
