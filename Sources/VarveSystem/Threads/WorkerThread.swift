import CLinux
import Glibc
package import SystemPackage

/// A value that goes over to another thread and is used there alone.
package final class Handover<Value>: @unchecked Sendable {
    private var value: Value?

    package init(_ value: sending Value) { self.value = value }

    /// The value, once.
    package func take() -> Value? {
        defer { value = nil }
        return value
    }
}

/// A thread with an owner. It is joined at the latest when the owner goes away, so none outlives its work.
@safe
package final class WorkerThread: @unchecked Sendable {
    private final class Start {
        let name: String
        let body: @Sendable () -> Void
        init(name: String, _ body: @escaping @Sendable () -> Void) {
            self.name = name
            self.body = body
        }
    }

    private let monitor = Monitor()
    private var handle: pthread_t?

    /// Starts a thread. All signals are blocked in it, so that they are handled where the program expects
    /// them.
    /// - Parameter name: shown by ps(1) and top(1); 15 bytes at most, or it is not set.
    /// - Throws: the error of pthread_create(3).
    package init(name: String, _ body: @escaping @Sendable () -> Void) throws(Errno) {
        handle = try Self.start(name, body)
    }

    /// Starts a thread that nobody waits for; what it works with must keep itself alive.
    package static func detached(name: String, _ body: @escaping @Sendable () -> Void) throws(Errno) {
        pthread_detach(try start(name, body))
    }

    private static func start(_ name: String, _ body: @escaping @Sendable () -> Void) throws(Errno)
        -> pthread_t
    {
        var all = sigset_t()
        var before = sigset_t()
        unsafe sigfillset(&all)
        unsafe pthread_sigmask(SIG_BLOCK, &all, &before)
        defer { unsafe pthread_sigmask(SIG_SETMASK, &before, nil) }

        var thread = pthread_t()
        let start = unsafe Unmanaged.passRetained(Start(name: name, body))
        let result = unsafe pthread_create(
            &thread, nil,
            { argument in
                guard let argument = unsafe argument else { return nil }
                let start = unsafe Unmanaged<Start>.fromOpaque(argument).takeRetainedValue()
                unsafe varve_name_thread(start.name)
                start.body()
                return nil
            }, unsafe start.toOpaque())
        guard result == 0 else {
            unsafe start.release()
            throw Errno(rawValue: result)
        }
        return thread
    }

    deinit { join() }

    /// Waits until the thread has ended; a second call does nothing.
    package func join() {
        monitor.locked {
            guard let handle else { return }
            pthread_join(handle, nil)
            self.handle = nil
        }
    }
}
