extension HistoryRunner {
    /// Leaves operations out of a history that fails as long as it still fails, first in large pieces, then
    /// one by one (delta debugging; Zeller, Hildebrandt: "Simplifying and isolating failure-inducing input",
    /// 2002). In the end no single operation can be left out, or `trials` runs are used up. Nil if the
    /// history does not fail.
    ///
    /// The failure may change its face under way: any failure of the check counts.
    package func shrink(_ history: History, trials: Int = 2000, check: Check) throws -> HistoryFailure? {
        guard var smallest = try run(history, check: check).failure else { return nil }
        var left = trials
        var piece = max(1, history.operations.count / 2)
        while left > 0 {
            var hasShrunk = false
            var start = 0
            while start < smallest.history.operations.count, left > 0 {
                var operations = smallest.history.operations
                operations.removeSubrange(start..<min(start + piece, operations.count))
                left -= 1
                if let failure = try run(History(operations), check: check).failure {
                    // What now stands at `start` was behind the piece that is gone.
                    smallest = failure
                    hasShrunk = true
                } else {
                    start += piece
                }
            }
            if piece > 1 {
                piece = max(1, min(piece / 2, smallest.history.operations.count / 2))
            } else if !hasShrunk {
                break
            }
        }
        try louden(&smallest, check)
        return smallest
    }

    /// The shrunk history of a seed, nil if that does not fail.
    package func shrink(seed: UInt64, trials: Int = 2000, check: Check) throws -> HistoryFailure? {
        try shrink(History(generating: seed), trials: trials, check: check)
    }

    /// Takes `quietly` off where it does not matter, so that it stands only where it does.
    private func louden(_ smallest: inout HistoryFailure, _ check: Check) throws {
        for index in smallest.history.operations.indices where smallest.history.operations[index].isQuiet {
            var history = smallest.history
            history.operations[index].isQuiet = false
            if let failure = try run(history, check: check).failure { smallest = failure }
        }
    }
}
