#if Containerd
    import NIOCore

    /// Runs tasks on the thread of an event loop.
    ///
    /// gRPC takes a call from its connection to its handler and back through several tasks. On the threads of Swift's own pool each step wakes a
    /// thread, which takes longer than a call that is answered from memory. What runs here must not wait for a disk.
    final class EventLoopTaskExecutor: TaskExecutor {
        private let loop: any EventLoop

        init(_ loop: any EventLoop) { self.loop = loop }

        func enqueue(_ job: consuming ExecutorJob) {
            // Safe: each job is run once, and this executor lives as long as the closure.
            let job = UnownedJob(job)
            loop.execute { unsafe job.runSynchronously(on: self.asUnownedTaskExecutor()) }
        }
    }
#endif
