#if Containerd
    import Synchronization
    import VarveSystem

    /// Carries values from an asynchronous writer to a thread that reads. As many lie in it as `limit` says.
    final class InwardPipe<Element: Sendable>: @unchecked Sendable {
        private let monitor = Monitor()
        private let changed = Condition()
        private let limit: Int
        // All under `monitor`.
        private var elements: [Element] = []
        private var end: Result<Void, any Error>?
        private var isAbandoned = false
        private var waiting: CheckedContinuation<Void, Never>?

        init(limit: Int) { self.limit = limit }

        /// False if nobody reads any more.
        func send(_ element: Element) async -> Bool {
            await withCheckedContinuation { continuation in
                let goesOn = monitor.locked {
                    elements.append(element)
                    changed.signal()
                    if isAbandoned || elements.count < limit { return true }
                    waiting = continuation
                    return false
                }
                if goesOn { continuation.resume() }
            }
            return monitor.locked { !isAbandoned }
        }

        func finish(_ result: Result<Void, any Error>) {
            monitor.locked {
                if end == nil { end = result }
                changed.broadcast()
            }
        }

        /// Waits for the next element; nil at the end.
        func next() throws -> Element? {
            let (element, writer) = try monitor.locked {
                () throws -> (Element?, CheckedContinuation<Void, Never>?) in
                while elements.isEmpty {
                    if let end {
                        try end.get()
                        return (nil, nil)
                    }
                    monitor.wait(for: changed)
                }
                let writer = waiting
                waiting = nil
                return (elements.removeFirst(), writer)
            }
            writer?.resume()
            return element
        }

        func abandon() {
            let writer = monitor.locked {
                isAbandoned = true
                elements = []
                defer { waiting = nil }
                return waiting
            }
            writer?.resume()
        }
    }

    /// Carries values from a thread that writes to an asynchronous reader. The writer waits while `limit` lie in it.
    final class OutwardPipe<Element: Sendable>: @unchecked Sendable {
        private let monitor = Monitor()
        private let changed = Condition()
        private let limit: Int
        // All under `monitor`.
        private var elements: [Element] = []
        private var isFinished = false
        private var isAbandoned = false
        private var waiting: CheckedContinuation<Element?, Never>?

        init(limit: Int) { self.limit = limit }

        /// False if nobody reads any more.
        func send(_ element: Element) -> Bool {
            let reader: CheckedContinuation<Element?, Never>? = monitor.locked {
                while elements.count >= limit, !isAbandoned { monitor.wait(for: changed) }
                if isAbandoned { return nil }
                if let reader = waiting {
                    waiting = nil
                    return reader
                }
                elements.append(element)
                return nil
            }
            reader?.resume(returning: element)
            return monitor.locked { !isAbandoned }
        }

        func finish() {
            let reader = monitor.locked {
                isFinished = true
                defer { waiting = nil }
                return waiting
            }
            reader?.resume(returning: nil)
        }

        /// The next element; nil at the end.
        func next() async -> Element? {
            await withCheckedContinuation { continuation in
                let (element, isKnown) = monitor.locked { () -> (Element?, Bool) in
                    if !elements.isEmpty {
                        changed.signal()
                        return (elements.removeFirst(), true)
                    }
                    if isFinished || isAbandoned { return (nil, true) }
                    waiting = continuation
                    return (nil, false)
                }
                if isKnown { continuation.resume(returning: element) }
            }
        }

        /// Nobody reads any more.
        func abandon() {
            let reader = monitor.locked {
                isAbandoned = true
                changed.broadcast()
                defer { waiting = nil }
                return waiting
            }
            reader?.resume(returning: nil)
        }
    }

    /// A result that a thread waits for.
    final class Outcome<Value: Sendable>: @unchecked Sendable {
        private let monitor = Monitor()
        private let changed = Condition()
        private var result: Result<Value, any Error>?

        func set(_ result: Result<Value, any Error>) {
            monitor.locked {
                if self.result == nil { self.result = result }
                changed.broadcast()
            }
        }

        /// Nil while there is none.
        var current: Result<Value, any Error>? { monitor.locked { result } }

        func wait() throws -> Value {
            try monitor.locked { () throws -> Value in
                while true {
                    if let result { return try result.get() }
                    monitor.wait(for: changed)
                }
            }
        }
    }
#endif
