import BtrfsSendStream
package import VarveSystem
package import SystemPackage

/// The way through a subvolume and those that lie in it: each is entered before those in it, and left after them. A step costs the same
/// however deep the subvolume lies, and few stay open: whoever runs a container can nest subvolumes in its root.
package final class SubvolumeDescent {
    /// A subvolume on the way.
    package struct Subvolume {
        package let root: SharedDescriptor
        package let id: UInt64
        package let name: BytePath
        /// As it was entered.
        package let isReadOnly: Bool
        /// Whether others lie in it.
        package let hasNested: Bool
    }

    package enum Step {
        /// With the directory that it lies in; nil for the first one.
        case entered(Subvolume, in: SharedDescriptor?)
        /// All in it were entered and left.
        case left(Subvolume, in: SharedDescriptor?)
    }

    private struct Frame {
        /// Nil while it is closed.
        var root: SharedDescriptor?
        /// Its number and its UUID: another file system has subvolumes of the same numbers.
        var id: UInt64
        var uuid: SubvolumeUUID
        /// In the one above.
        var directory: BytePath
        var name: BytePath
        var isReadOnly: Bool
        var hasNested: Bool
        /// Those in it that were not entered yet.
        var nested: [NestedSubvolume]

        func subvolume(_ root: SharedDescriptor) -> Subvolume {
            Subvolume(root: root, id: id, name: name, isReadOnly: isReadOnly, hasNested: hasNested)
        }
    }

    private let operation: BtrfsError.Operation
    private var stack: [Frame] = []
    /// What the first step enters, until it is done.
    private var first: (directory: FileDescriptor, name: BytePath)?

    /// - Parameters:
    ///   - directory: in which the outermost subvolume lies. It must stay open until the first step.
    ///   - name: of the outermost subvolume; `.` for the directory itself.
    ///   - operation: what errors say was being done.
    package init(_ directory: FileDescriptor, _ name: BytePath, _ operation: BtrfsError.Operation) {
        self.operation = operation
        first = (directory, name)
    }

    /// The path of the subvolume that was entered last, below the first one; empty for that. It is made anew each time.
    package var path: BytePath {
        BytePath(joining: stack.dropFirst().flatMap { $0.directory.components + [$0.name] })
    }

    /// The next step; nil when the first one was left.
    package func next() throws(BtrfsError) -> Step? {
        if let start = first {
            first = nil
            return .entered(try enter(start.directory, .empty, start.name), in: nil)
        }
        guard let last = stack.indices.last, let root = stack[last].root else { return nil }
        if let child = stack[last].nested.popLast() {
            let place = try directory(child.directory, in: root.fd, child.name)
            return .entered(try enter(place.fd, child.directory, child.name), in: place)
        }
        let frame = stack.removeLast()
        guard let above = stack.indices.last else { return .left(frame.subvolume(root), in: nil) }
        let outer: SharedDescriptor
        if let open = stack[above].root {
            outer = open
        } else {
            outer = try reopened(stack[above], from: frame, root.fd)
            stack[above].root = outer
        }
        let place = try directory(frame.directory, in: outer.fd, frame.name)
        return .left(frame.subvolume(root), in: place)
    }

    private func enter(_ parent: FileDescriptor, _ directory: BytePath, _ name: BytePath) throws(BtrfsError)
        -> Subvolume
    {
        let root: SharedDescriptor
        do throws(Errno) {
            let opened = try parent.openDirectory(name)
            root = SharedDescriptor(opened)
        } catch {
            throw BtrfsError(operation, parent, name, errno: error)
        }
        guard try root.fd.isSubvolume() else {
            throw BtrfsError(operation, parent, name, errno: .invalidArgument)
        }
        let info = try root.fd.subvolumeInfo()
        let nested = try root.fd.nestedSubvolumes()
        let frame = Frame(
            root: root, id: info.id, uuid: info.uuid, directory: directory, name: name,
            isReadOnly: info.isReadOnly, hasNested: !nested.isEmpty, nested: nested)
        stack.append(frame)
        let farthest = stack.count - 1 - DirectoryDescent.width
        if farthest >= 0 { stack[farthest].root = nil }
        return frame.subvolume(root)
    }

    /// The directory `path` in a subvolume.
    private func directory(_ path: BytePath, in root: FileDescriptor, _ name: BytePath) throws(BtrfsError)
        -> SharedDescriptor
    {
        do throws(Errno) {
            return SharedDescriptor(
                try root.open(
                    path.isEmpty ? .current : path, [.directory, .noFollow],
                    resolve: [.beneath, .noSymlinks, .noCrossing]))
        } catch {
            throw BtrfsError(operation, root, path.appending(name), errno: error)
        }
    }

    /// Goes back from a subvolume to the one above it, which was closed: only to that one, wherever it lies by now.
    private func reopened(_ above: Frame, from below: Frame, _ root: FileDescriptor) throws(BtrfsError)
        -> SharedDescriptor
    {
        do throws(Errno) {
            // Not out of a mount: whoever moves it there has the way end elsewhere.
            var here = SharedDescriptor(try root.open("..", [.directory], resolve: .noCrossing))
            for _ in below.directory.components {
                here = SharedDescriptor(try here.fd.open("..", [.directory], resolve: .noCrossing))
            }
            let isRight: Bool? = try? here.fd.isSubvolume() && here.fd.subvolumeInfo().uuid == above.uuid
            guard isRight == true else { throw .wasReplaced }
            return here
        } catch {
            throw BtrfsError(operation, root, below.name, errno: error)
        }
    }
}
