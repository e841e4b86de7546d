import VarveSystem

/// The memory that a number of streams may fill together, in slabs of one size.
///
/// # Who gets a slab
///
/// A stream is *ahead* until its reader first asks for bytes, and *opened* from then on.
///
/// 1. Slabs are given while fewer than `slabCount` are out.
/// 2. Streams that are ahead leave a quarter of the slabs (at least one) to the opened ones.
/// 3. Opened streams come first; among those ahead, the one that was made first.
/// 4. A stream whose reader waits for bytes and which holds no slab gets one in any case.
///
/// # Why this cannot deadlock
///
/// A reader that waits has given back its own slab and finds nothing filled. So each slab that its stream
/// still holds is being filled or being observed, both of which end without the reader; after that the stream
/// holds no slab, and by rule 4 the next one is not waited for. Streams that nobody waits for may wait for as
/// long as they like: their slabs are not needed for anything but themselves.
///
/// # Why the budget is kept
///
/// When streams are read one after another, only one is opened at a time (a stream that has ended holds
/// nothing), and rule 4 never gives more than rules 1 and 2 allow: if the opened stream holds no slab, those
/// out are all held by streams that are ahead, and by rule 2 that is not all of them. Only who reads several
/// streams at the same time from a budget that is used up gets one slab for each of them on top.
@safe
package final class MemoryBudget: @unchecked Sendable {
    package static let defaultSlabSize = 256 * 1024

    /// Bytes of one slab, a multiple of 4096.
    package let slabSize: Int
    /// Slabs that may be in use at the same time, at least 1.
    package let slabCount: Int
    private let reserve: Int

    /// Guards everything below and the state of all streams of this budget: a slab is passed on a few
    /// thousand times a second at most, so one lock is enough and there is no order of locks to get wrong.
    let monitor = Monitor()
    private var free: [UnsafeMutableRawPointer] = unsafe []
    private var used = 0
    private var usedAhead = 0
    private var peak = 0
    private var accounts: [SlabAccount] = []

    /// - Parameters:
    ///   - bytes: rounded down to whole slabs, but at least one.
    ///   - slabSize: bytes, rounded up to a multiple of 4096.
    package init(bytes: Int, slabSize: Int = MemoryBudget.defaultSlabSize) {
        let page = AlignedBuffer.alignment
        self.slabSize = max(page, (min(slabSize, 1 << 30) + page - 1) / page * page)
        slabCount = max(1, bytes / self.slabSize)
        reserve = max(1, slabCount / 4)
    }

    deinit { unsafe free.forEach { unsafe $0.deallocate() } }

    /// The most slabs that have been in use at the same time.
    package var peakSlabCount: Int { monitor.locked { peak } }
    /// The slabs in use now.
    package var usedSlabCount: Int { monitor.locked { used } }

    // MARK: - For streams; the monitor is locked

    func register(_ account: SlabAccount) { accounts.append(account) }

    /// The stream takes no more slabs. Those that it holds still count until it gives them back.
    func unregister(_ account: SlabAccount) {
        accounts.removeAll { $0 === account }
        wakeNext()
    }

    /// Its reader has come: the stream is not ahead any more.
    func open(_ account: SlabAccount) {
        guard !account.isOpened else { return }
        account.isOpened = true
        usedAhead -= account.held
        wakeNext()
    }

    /// The reader of the stream waits for bytes, or has got some.
    func setStarving(_ account: SlabAccount, _ isStarving: Bool) {
        account.isStarving = isStarving
        if isStarving { wakeNext() }
    }

    /// Waits for a slab; nil once the stream is closed.
    func take(for account: SlabAccount) -> UnsafeMutableRawPointer? {
        account.isWaiting = true
        while !account.isClosed, !mayTake(account) { monitor.wait(for: account.slabGranted) }
        account.isWaiting = false
        defer { wakeNext() }
        if account.isClosed { return nil }
        account.held += 1
        used += 1
        if !account.isOpened { usedAhead += 1 }
        peak = max(peak, used)
        return unsafe free.popLast()
            ?? UnsafeMutableRawPointer.allocate(byteCount: slabSize, alignment: AlignedBuffer.alignment)
    }

    func giveBack(_ slab: UnsafeMutableRawPointer, from account: SlabAccount) {
        account.held -= 1
        used -= 1
        if !account.isOpened { usedAhead -= 1 }
        // The slab used last is given out next, because the caches still know it.
        if unsafe free.count + used < slabCount { unsafe free.append(slab) } else { unsafe slab.deallocate() }
        wakeNext()
    }

    private func mayTake(_ account: SlabAccount) -> Bool {
        if account.isStarving, account.held == 0 { return true }
        if used >= slabCount { return false }
        if account.isOpened { return true }
        if usedAhead >= slabCount - reserve { return false }
        for other in accounts {
            if other === account { break }
            if other.isWaiting, !other.isOpened { return false }
        }
        return !accounts.contains { $0.isWaiting && $0.isOpened }
    }

    /// Whoever may have a slab now is told so. A thread that has been told and finds the slab gone waits on;
    /// every change after which it could have one comes through here.
    private func wakeNext() {
        for account in accounts where account.isWaiting && mayTake(account) { account.slabGranted.signal() }
    }
}

/// What a budget knows of one stream; guarded by the monitor of the budget.
final class SlabAccount: @unchecked Sendable {
    let slabGranted = Condition()
    /// Slabs that the stream has now.
    var held = 0
    var isOpened = false
    /// Its reader waits for bytes.
    var isStarving = false
    /// Its producer waits for a slab.
    var isWaiting = false
    /// Nothing more is taken.
    var isClosed = false
}
