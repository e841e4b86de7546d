import Glibc
import Synchronization
package import VarveSystem
import SystemPackage

/// The threads and the memory that a process gives to calls that read, hash and write for seconds.
///
/// A call is a request that waits, costs no thread while it does, and is served in the order of arrival. A bounded number
/// of calls run at the same time, each on a thread of its own.
///
/// # Why this cannot deadlock
///
/// 1. A place is the first thing that a call gets, and it keeps the place to its end. So whoever holds a lock, a lease or
///    a snapshot in this process has a place and a thread. No request that waits holds anything.
/// 2. Nothing is waited for in the workshop but a place. A running call asks for more memory and for helper threads, and
///    gets what is free at that moment; a share of the memory that is always enough is set aside for each place.
/// 3. So a running call waits for locks of other running calls and of other processes only. It holds the lock of one
///    chain at most while it waits, and none while it waits for another chain. The holder of a lock therefore always
///    comes to its end, and those that wait for it come next.
///
/// A call that waits for another call of the same workshop breaks the first rule: a driver or a progress handler must
/// never do that.
public final class Workshop: Sendable {
    /// How much a workshop may take.
    public struct Limits: Sendable, Hashable {
        /// The calls that run at the same time, at least 1. By default two for each processor, 8 to 32.
        public var calls: Int
        /// Threads that running calls may have beside their own, all together. A call that gets none is slower and
        /// does the same. By default three for each processor, at least 12.
        public var helpers: Int
        /// Bytes of memory for layers that are being inflated, all together. It is at least 8 MiB for each call; by default
        /// 256 MiB.
        public var memory: Int

        /// - Parameters:
        ///   - calls: nil for the default.
        ///   - helpers: nil for the default.
        ///   - memory: bytes.
        public init(calls: Int? = nil, helpers: Int? = nil, memory: Int = 256 << 20) {
            let processors = max(1, sysconf(Int32(_SC_NPROCESSORS_ONLN)))
            self.calls = max(1, calls ?? min(32, max(8, 2 * processors)))
            self.helpers = max(0, helpers ?? max(12, 3 * processors))
            self.memory = max(memory, Self.memoryPerCall * self.calls)
        }

        fileprivate static let memoryPerCall = 8 << 20

        /// The most threads that all calls together have at any moment: those of a call are at most five (itself, and for
        /// a layer one that inflates, one that hashes and one that writes files; or three that walk and one that sends).
        package var threads: Int { calls * 5 + helpers }
    }

    /// The workshop of this process, for all that have none of their own. It starts no thread before the first call.
    public static let shared = Workshop()

    package let limits: Limits
    /// Bytes that each running call has in any case; the other half of the memory goes to those that ask first.
    private let ownMemory: Int
    private let state: Mutex<State>

    /// A call, given its place, or the error that there is none for it. What it returns is called once the place is free
    /// again.
    package typealias Call = @Sendable (Result<WorkPlace, VarveError>) -> () -> Void

    private struct Request: Sendable {
        var ticket: WorkTicket
        var call: Call
    }

    private struct State {
        var lastNumber = 0
        var waiting: [Int: Request] = [:]
        /// The numbers of requests in the order of arrival, from `first` on. Those that are not waiting any more were
        /// given up.
        var order: [Int] = []
        var first = 0
        /// Threads that serve requests, those about to start included.
        var threads = 0
        var places = 0
        var freeMemory: Int
        var freeHelpers: Int

        mutating func takeNext() -> Request? {
            while first < order.count {
                let number = order[first]
                first += 1
                guard let request = waiting.removeValue(forKey: number) else { continue }
                if first > 1024, first > order.count / 2 {
                    order.removeFirst(first)
                    first = 0
                }
                return request
            }
            order = []
            first = 0
            return nil
        }

        mutating func takeAll() -> [Request] {
            var all: [Request] = []
            while let request = takeNext() { all.append(request) }
            return all
        }
    }

    /// A workshop of its own limits.
    public init(_ limits: Limits = Limits()) {
        // A caller may have changed the members since.
        let limits = Limits(calls: limits.calls, helpers: limits.helpers, memory: limits.memory)
        self.limits = limits
        ownMemory = limits.memory / 2 / limits.calls
        state = Mutex(
            State(freeMemory: limits.memory - ownMemory * limits.calls, freeHelpers: limits.helpers))
    }

    /// The calls that have a place now, and those that wait for one.
    public var load: (running: Int, waiting: Int) {
        state.withLock { ($0.places, $0.waiting.count) }
    }

    /// A number for a call that is about to be requested.
    package func ticket() -> WorkTicket {
        WorkTicket(
            number: state.withLock {
                $0.lastNumber += 1
                return $0.lastNumber
            })
    }

    /// Requests a place for a call. Returns at once.
    ///
    /// - Parameter call: it is called once: on a thread of the workshop, with a place that it has until it returns; or,
    ///   without one, with the error that the call was cancelled before it got a place, or that the machine gives no
    ///   thread.
    package func enter(_ ticket: WorkTicket, _ call: @escaping Call) {
        let needsThread: Bool? = state.withLock { state in
            if ticket.cancellation.isCancelled { return nil }
            state.waiting[ticket.number] = Request(ticket: ticket, call: call)
            state.order.append(ticket.number)
            guard state.threads < limits.calls else { return false }
            state.threads += 1
            return true
        }
        guard let needsThread else { return call(.failure(.cancelled))() }
        guard needsThread else { return }
        do throws(Errno) {
            try WorkerThread.detached(name: "varve") { [self] in serve() }
        } catch {
            // With fewer threads everybody comes to his turn, but not with none.
            let abandoned = state.withLock { state in
                state.threads -= 1
                return state.threads == 0 ? state.takeAll() : []
            }
            let failure = VarveError(
                .failed, "cannot start a thread: \(error)", remedy: .raiseLimit(.processes))
            for request in abandoned { request.call(.failure(failure))() }
        }
    }

    /// Asks a call to stop: one that waits for a place ends now, one that runs at its next step.
    package func cancel(_ ticket: WorkTicket) {
        ticket.cancellation.cancel()
        let request = state.withLock { $0.waiting.removeValue(forKey: ticket.number) }
        request?.call(.failure(.cancelled))()
    }

    private func serve() {
        while let request = next() {
            let place = WorkPlace(self, ownMemory: ownMemory, cancellation: request.ticket.cancellation)
            let end = request.call(.success(place))
            leave(place)
            end()
        }
    }

    private func next() -> Request? {
        state.withLock { state in
            let request = state.takeNext()
            if request == nil { state.threads -= 1 } else { state.places += 1 }
            return request
        }
    }

    private func leave(_ place: WorkPlace) {
        let (memory, helpers) = place.giveBack()
        state.withLock { state in
            state.places -= 1
            state.freeMemory += memory
            state.freeHelpers += helpers
        }
    }

    fileprivate func takeMemory(upTo wanted: Int) -> Int {
        state.withLock { state in
            let taken = max(0, min(wanted, state.freeMemory))
            state.freeMemory -= taken
            return taken
        }
    }

    fileprivate func takeHelpers(upTo wanted: Int) -> Int {
        state.withLock { state in
            let taken = max(0, min(wanted, state.freeHelpers))
            state.freeHelpers -= taken
            return taken
        }
    }
}

/// What a call is known by in its workshop, and how it is asked to stop (`Workshop.cancel`).
package final class WorkTicket: Sendable {
    fileprivate let number: Int
    package let cancellation = Cancellation()
    fileprivate init(number: Int) { self.number = number }
}

/// The place of a running call: its thread, and what it has of the workshop's memory and helper threads until it ends.
/// It is used on the thread of the call alone.
package final class WorkPlace {
    package let cancellation: Cancellation
    private let workshop: Workshop
    private let ownMemory: Int
    private var extraMemory = 0
    private var helpers = 0

    fileprivate init(_ workshop: Workshop, ownMemory: Int, cancellation: Cancellation) {
        self.workshop = workshop
        self.ownMemory = ownMemory
        self.cancellation = cancellation
    }

    /// The bytes that the call may use: what it wants, or less if others have it. It never waits.
    package func memory(upTo wanted: Int) -> Int {
        let more = wanted - ownMemory - extraMemory
        if more > 0 { extraMemory += workshop.takeMemory(upTo: more) }
        return min(max(0, wanted), ownMemory + extraMemory)
    }

    /// The threads that the call may start beside its own. It never waits, and may be given none.
    package func helpers(upTo wanted: Int) -> Int {
        let more = wanted - helpers
        if more > 0 { helpers += workshop.takeHelpers(upTo: more) }
        return min(max(0, wanted), helpers)
    }

    fileprivate func giveBack() -> (memory: Int, helpers: Int) {
        defer { (extraMemory, helpers) = (0, 0) }
        return (extraMemory, helpers)
    }
}

extension WorkPlace {
    /// The options of an unpack, cut down to what this place may use.
    package func fitted(_ options: Unpacking.Options) -> Unpacking.Options {
        var fitted = options
        fitted.memory = memory(upTo: options.memory)
        fitted.helpers = helpers(upTo: options.helpers)
        return fitted
    }

    /// The options of a repack, cut down to what this place may use: two threads that compress are a call's own, the
    /// others are helpers.
    package func fitted(_ options: Repacking.Options) -> Repacking.Options {
        var fitted = options
        fitted.threads = min(options.threads, 2) + helpers(upTo: options.threads - 2)
        return fitted
    }
}
