import VarveSystem

extension History {
    /// The history of a seed: always the same one. A base tree of some 5 to 60 files and a snapshot, then one
    /// to four stretches of changes with a snapshot behind each.
    package init(generating seed: UInt64) {
        var generator = HistoryGenerator(seed: seed)
        generator.generate()
        self.init(seed: seed, generator.operations)
    }
}

/// Chooses operations with the help of a model of the tree.
struct HistoryGenerator {
    /// What a history is mostly about.
    enum Profile: CaseIterable {
        /// Some of everything.
        case mixed
        /// Renames and hard links among few names: where the kernel's send goes wrong.
        case renames
        /// What is in files, and what only seems to be.
        case contents
        case metadata
        /// Unlinked and made again, types changed, whole trees replaced.
        case types
        case subvolumes
        /// Paths of thousands of bytes.
        case deep
        /// Hundreds of hard links to one inode, so that the inode references overflow (INODE_EXTREF).
        case manyLinks
    }

    enum Action {
        case create, temporaryFile, write, append, truncate, punch, zero, allocate, rewrite, reflink, clone,
            copy
        case dedupe, defrag, read, fsync, sync
        case makeDirectory, makeChain, deepChain, symbolicLink, fifo, device, socket
        case link, linkOver, manyLinks, unlink, orphan, removeDirectory, removeTree
        case rename, renameOver, exchange, swap, rotate, moveDirectory, swapParentAndChild, thereAndBack
        case replace, twin, join, recreate, retype, rebuildDirectory, createAndDelete
        case chmod, chown, setAttribute, deleteAttribute, setCapability, setACL, property, touch, same
        case subvolume, nest, deleteSubvolume
    }

    private var random: HistoryRandom
    private var model = HistoryModel()
    private(set) var operations = [HistoryOperation]()
    private var twins = [(Int, Int)]()
    private var attributes = [(node: Int, name: BytePath)]()
    private let profile: Profile
    private let quietPercent: Int
    private var counter = 0

    init(seed: UInt64) {
        random = HistoryRandom(seed: seed)
        profile =
            random.pick(weighted: [
                (Profile.mixed, 30), (.renames, 30), (.contents, 12), (.metadata, 8), (.types, 12),
                (.subvolumes, 5),
                (.deep, 2), (.manyLinks, 2),
            ]) ?? .mixed
        quietPercent = random.pick([0, 10, 30, 60]) ?? 0
    }

    mutating func generate() {
        let files = random.pick(weighted: [(5, 3), (10, 4), (20, 4), (40, 2), (60, 1)]) ?? 10
        for _ in 0..<files { perform(pick(buildWeights)) }
        for _ in 0..<random.below(8) { perform(pick(changeWeights)) }
        var saved = [HistoryModel]()
        // How many of the snapshots are trees that were made read-only themselves, and whether such are written to later.
        let frozenPercent = random.pick([0, 30, 70]) ?? 0
        let editPercent = random.pick([0, 0, 20, 50]) ?? 0
        func snapshot(_ generator: inout HistoryGenerator) {
            let freezes = generator.random.chance(frozenPercent)
            for _ in 0..<2 where freezes && generator.random.chance(editPercent) {
                guard let path = generator.regularPath() else { break }
                generator.emit(.hold, [path])
            }
            generator.operations.append(HistoryOperation(freezes ? .freeze : .snapshot))
            saved.append(generator.model)
            if freezes, generator.random.chance(editPercent) {
                generator.emit(
                    .late, [], [generator.offset(), 1 + generator.random.below(300), generator.seed()])
            }
            guard generator.random.chance(editPercent) else { return }
            let number = generator.random.below(saved.count)
            let current = generator.model
            generator.model = saved[number]
            if let path = generator.regularPath() {
                generator.emit(
                    .edit, [path],
                    [number, generator.offset(), 1 + generator.random.below(5000), generator.seed()])
            }
            generator.model = current
        }
        snapshot(&self)
        // How the writable tree goes on behind a snapshot: itself; a writable snapshot of the last one, as a
        // bundle is of a chain; or one of any, so that OLD is no ancestor of NEW.
        let style = random.below(4)
        for _ in 0..<(1 + random.below(4)) {
            let base = style == 1 ? saved.count - 1 : style == 2 ? random.below(saved.count) : nil
            if let base {
                operations.append(HistoryOperation(.rebase, [], [base]))
                model = saved[base]
                twins = []
                attributes = []
            }
            let count = random.pick(weighted: [(1, 3), (2, 3), (4, 3), (8, 3), (16, 2), (32, 2)]) ?? 4
            for _ in 0..<count { perform(pick(changeWeights)) }
            snapshot(&self)
        }
    }

    private mutating func pick(_ weights: [(Action, Int)]) -> Action {
        random.pick(weighted: weights) ?? .create
    }

    private var buildWeights: [(Action, Int)] {
        var weights: [(Action, Int)] = [
            (.create, 40), (.makeDirectory, 18), (.makeChain, 3), (.symbolicLink, 5), (.fifo, 2),
            (.device, 2),
            (.link, 8), (.reflink, 3), (.setAttribute, 4), (.chmod, 2), (.chown, 2), (.twin, 3), (.setACL, 1),
            (.setCapability, 1), (.touch, 2), (.socket, 1),
        ]
        switch profile {
        case .renames: weights += [(.makeDirectory, 25), (.link, 20)]
        case .subvolumes: weights += [(.subvolume, 6), (.makeDirectory, 10)]
        case .deep: weights += [(.deepChain, 8)]
        case .manyLinks: weights += [(.manyLinks, 10)]
        default: break
        }
        return weights
    }

    private var changeWeights: [(Action, Int)] {
        let contents: [(Action, Int)] = [
            (.write, 6), (.append, 3), (.truncate, 4), (.punch, 3), (.zero, 3), (.allocate, 3), (.rewrite, 3),
            (.reflink, 3), (.clone, 3), (.copy, 3), (.dedupe, 2), (.defrag, 1), (.read, 2), (.fsync, 1),
            (.sync, 1),
        ]
        let names: [(Action, Int)] = [
            (.create, 8), (.temporaryFile, 2), (.makeDirectory, 5), (.makeChain, 2), (.symbolicLink, 2),
            (.link, 6), (.linkOver, 3), (.unlink, 6), (.orphan, 2), (.removeDirectory, 2), (.removeTree, 2),
            (.rename, 8), (.renameOver, 5), (.exchange, 4), (.swap, 3), (.rotate, 2), (.moveDirectory, 5),
            (.swapParentAndChild, 3), (.thereAndBack, 2), (.createAndDelete, 1),
        ]
        let types: [(Action, Int)] = [
            (.replace, 4), (.twin, 3), (.join, 3), (.recreate, 4), (.retype, 5), (.rebuildDirectory, 3),
            (.fifo, 1),
            (.device, 1), (.socket, 1), (.renameOver, 3), (.symbolicLink, 1),
        ]
        let metadata: [(Action, Int)] = [
            (.chmod, 3), (.chown, 3), (.setAttribute, 4), (.deleteAttribute, 3), (.setCapability, 2),
            (.setACL, 2),
            (.property, 1), (.touch, 3), (.same, 4),
        ]
        let subvolumes: [(Action, Int)] = [(.subvolume, 3), (.nest, 2), (.deleteSubvolume, 3)]
        func times(_ factor: Int, _ weights: [(Action, Int)]) -> [(Action, Int)] {
            weights.map { ($0.0, $0.1 * factor) }
        }
        switch profile {
        case .mixed: return contents + names + types + metadata + [(.subvolume, 1), (.deleteSubvolume, 1)]
        case .renames: return times(5, names) + types + contents.prefix(3) + metadata.prefix(1)
        case .contents: return times(5, contents) + names + types
        case .metadata: return times(5, metadata) + names + contents + types
        case .types: return times(5, types) + times(2, names) + contents + metadata
        case .subvolumes: return times(4, subvolumes) + times(2, names) + types + contents
        case .deep: return names + types + contents + metadata + [(.deepChain, 5), (.moveDirectory, 10)]
        case .manyLinks:
            return times(2, names) + types + contents + metadata + [(.manyLinks, 4), (.unlink, 10)]
        }
    }

    // MARK: Choosing

    private mutating func emit(_ verb: HistoryOperation.Verb, _ words: [BytePath], _ numbers: [Int] = []) {
        operations.append(HistoryOperation(verb, words, numbers, isQuiet: random.chance(quietPercent)))
    }

    private mutating func someDirectory(in volume: Int? = nil) -> Int {
        let all = model.directories.filter { volume == nil || model.volume(of: $0) == volume }
        // The root more often than one of many: names in it collide with what a receiver of a stream makes
        // there.
        return random.chance(20) && all.contains(0) ? 0 : random.pick(all) ?? 0
    }

    private mutating func some(_ kinds: HistoryModel.Kind...) -> Int? {
        random.pick(model.ids { kinds.contains($0.kind) })
    }

    private mutating func someFile() -> Int? { random.pick(model.ids { !$0.kind.isDirectory }) }

    private mutating func someName(of id: Int?) -> HistoryModel.Name? {
        guard let id, let node = model.node(id) else { return nil }
        return random.pick(node.names)
    }

    /// A regular file that there is, by one of its names.
    private mutating func regularPath() -> BytePath? {
        guard let name = someName(of: some(.regular)) else { return nil }
        return model.path(name)
    }

    private mutating func anyPath() -> BytePath? {
        if random.chance(5) { return .current }
        guard let name = someName(of: random.pick(model.ids { _ in true })) else { return nil }
        return model.path(name)
    }

    private mutating func freshName(in directory: Int) -> HistoryModel.Name {
        let letters = ["a", "b", "c", "d", "e", "f"]
        for _ in 0..<12 {
            let name =
                profile == .renames && !random.chance(5)
                ? BytePath(random.pick(letters) ?? "a") : random.pick(Self.names) ?? BytePath("a")
            if model.child(directory, name) == nil { return HistoryModel.Name(parent: directory, name: name) }
        }
        counter += 1
        return HistoryModel.Name(parent: directory, name: BytePath("n\(counter)"))
    }

    private mutating func fresh(in volume: Int? = nil) -> HistoryModel.Name {
        let directory = someDirectory(in: volume)
        return freshName(in: directory)
    }

    /// Names that sort around the slash, are no text, are as long as they may be, look like the temporary
    /// names of a send stream or like whiteouts and are none, or share their hash in a btrfs directory
    /// (CRC-32C).
    private static let names: [BytePath] =
        [
            "a", "b", "c", "d", "e", "f", "g", "h", "a-b", "a.b", "a0", "a ", "-", "...", "…", "ü",
            "two words", "new\nline",
        ]
        .map { BytePath($0) }
        + [
            "back\\slash", "o257-7-0", "o258-8-0", "o261-9-0", ".whx", "wh.", "*", "[a]", "ue2r43xy",
            "c54cvxdh",
        ]
        .map { BytePath($0) }
        + [
            "qlvw434k", "flotycs9", "%s", "a\u{301}", "\u{e1}", "\"", "CON",
            String(repeating: "n", count: 255),
        ]
        .map { BytePath($0) }
        + [[0xff], [0xc3, 0x28], [0x80, 0xfe, 0x2d], Array(repeating: 0xe9, count: 255), [1], [0x7f]]
        .compactMap { (bytes: [UInt8]) in BytePath(bytes) }

    private mutating func size() -> Int {
        random.pick(weighted: [
            (0, 2), (random.below(200), 6), (2048, 1), (4095, 1), (4096, 2), (4097, 1),
            (random.below(12000), 3),
            (8192, 1), (random.below(70000), 2), (131_072, 1), (random.below(200_000), 1),
        ]) ?? 0
    }

    private mutating func offset() -> Int {
        random.pick(weighted: [
            (0, 3), (4096, 2), (random.below(200), 2), (random.below(10000), 3), (8192, 1), (65536, 1),
            (random.below(150_000), 1),
        ]) ?? 0
    }

    private mutating func seed() -> Int { random.below(50) }

    private mutating func mode() -> Int {
        random.pick([0o644, 0o600, 0o755, 0o4755, 0o2711, 0o1777, 0, 0o444]) ?? 0
    }

    private mutating func attributeName() -> BytePath {
        BytePath(
            random.pick([
                "user.a", "user.b", "user.c54cvxdh", "user.ue2r43xy", "trusted.t", "user.\u{e1}",
                "user." + String(repeating: "x", count: 240), "trusted.overlay.opaque",
            ]) ?? "user.a")
    }

    // MARK: Doing

    private mutating func perform(_ action: Action) {
        switch action {
        case .create: create(fresh())
        case .temporaryFile:
            let name = fresh()
            guard let path = model.path(name) else { return }
            emit(.tmpfile, [path], [size(), seed()])
            model.add(.regular, name)
        case .write, .append, .truncate, .punch, .zero, .allocate, .rewrite, .reflink, .clone, .copy, .dedupe,
            .defrag, .read, .fsync, .sync:
            changeContent(action)
        case .makeDirectory: makeDirectory(fresh())
        case .makeChain:
            var parent = someDirectory()
            for _ in 0..<(2 + random.below(3)) {
                guard let made = makeDirectory(freshName(in: parent)) else { return }
                parent = made
            }
        case .deepChain: makeDeepChain()
        case .symbolicLink:
            let name = fresh()
            guard let path = model.path(name) else { return }
            emit(.symlink, [path, target()])
            model.add(.symbolicLink, name)
        case .fifo, .device, .socket: makeSpecial(action, fresh())
        case .link, .linkOver, .manyLinks: addLinks(action)
        case .unlink, .orphan:
            guard let name = someName(of: someFile()), let path = model.path(name) else { return }
            emit(action == .orphan ? .orphan : .unlink, [path])
            model.remove(name)
        case .removeDirectory:
            let empty = model.ids { $0.kind == .directory && $0.children.isEmpty }
            guard let name = someName(of: random.pick(empty)), let path = model.path(name) else { return }
            emit(.rmdir, [path])
            model.remove(name)
        case .removeTree:
            guard let name = someName(of: some(.directory)), let path = model.path(name) else { return }
            emit(.rmtree, [path])
            model.remove(name)
        case .rename, .renameOver, .exchange, .swap, .rotate, .moveDirectory, .swapParentAndChild,
            .thereAndBack:
            move(action)
        case .replace, .twin, .join, .recreate, .retype, .rebuildDirectory, .createAndDelete: replace(action)
        case .chmod, .chown, .setAttribute, .deleteAttribute, .setCapability, .setACL, .property, .touch,
            .same:
            changeMetadata(action)
        case .subvolume:
            let name = fresh()
            guard let path = model.path(name) else { return }
            emit(.subvolume, [path])
            let made = model.add(.subvolume, name)
            if random.chance(50) { create(freshName(in: made)) }
        case .nest:
            let target = fresh()
            guard let source = model.path(some(.subvolume) ?? -1), let path = model.path(target) else {
                return
            }
            emit(.nest, [source, path])
            model.add(.subvolume, target)
        case .deleteSubvolume:
            guard let name = someName(of: some(.subvolume)), let path = model.path(name) else { return }
            emit(.unsubvolume, [path])
            model.remove(name)
        }
    }

    private mutating func create(_ name: HistoryModel.Name) {
        guard let path = model.path(name) else { return }
        let mode = random.chance(70) ? 0o644 : mode()
        emit(.create, [path], [size(), seed(), mode])
        model.add(.regular, name)
    }

    @discardableResult
    private mutating func makeDirectory(_ name: HistoryModel.Name) -> Int? {
        guard let path = model.path(name) else { return nil }
        emit(.mkdir, [path], [random.chance(80) ? 0o755 : mode()])
        return model.add(.directory, name)
    }

    private mutating func makeDeepChain() {
        let name = fresh()
        guard let path = model.path(name) else { return }
        let length = random.pick([1, 1, 3, 20, 100, 250]) ?? 1
        let room = max(1, (4080 - path.count) / (length + 1))
        let depth = random.chance(40) ? min(room, 700) : min(room, 1 + random.below(300))
        emit(.mkdirs, [path], [depth, length])
        var parent = model.add(.directory, name)
        for _ in 0..<depth {
            parent = model.add(.directory, HistoryModel.Name(parent: parent, name: Self.chainName(length)))
        }
        if random.chance(70) { create(freshName(in: parent)) }
    }

    /// The name of each directory that `mkdirs` makes.
    static func chainName(_ length: Int) -> BytePath {
        BytePath(String(repeating: "p", count: min(max(length, 1), 255)))
    }

    private mutating func target() -> BytePath {
        switch random.below(5) {
        case 0: BytePath("a")
        case 1: BytePath("../b/c")
        case 2: BytePath("/nowhere/at all")
        case 3: BytePath(String(repeating: "t", count: 1 + random.below(3000)))
        default: BytePath([0xff, 0x2f, 0xfe]) ?? .current
        }
    }

    private mutating func makeSpecial(_ action: Action, _ name: HistoryModel.Name) {
        guard let path = model.path(name) else { return }
        switch action {
        case .fifo: emit(.fifo, [path], [random.pick([0o644, 0o600]) ?? 0o644])
        case .device:
            emit(.device, [path], [random.below(2), random.pick([1, 0, 259]) ?? 1, random.below(4)])
        default: emit(.socket, [path])
        }
        model.add(action == .socket ? .socket : .special, name)
    }

    private mutating func addLinks(_ action: Action) {
        guard let id = someFile(), let name = someName(of: id), let path = model.path(name) else { return }
        let volume = model.volume(of: name.parent)
        switch action {
        case .linkOver:
            // Over a name that there is, as `ln -f` does.
            guard let over = someName(of: someFile()), model.child(over.parent, over.name) != id,
                model.volume(of: over.parent) == volume, let victim = model.path(over)
            else { return }
            emit(.unlink, [victim])
            model.remove(over)
            emit(.link, [path, victim])
            model.attach(id, over)
        case .manyLinks:
            // A directory item is up to 16 KiB of references: some hundreds of names in one directory
            // overflow it.
            var left = random.pick([200, 1000, 1000]) ?? 1000
            while left > 0 {
                let directory = someDirectory(in: volume)
                guard let target = model.path(directory) else { return }
                let count = min(left, random.pick([50, 400, 1000]) ?? 400)
                counter += 1
                let first = counter
                counter += count
                emit(.links, [path, target], [first, count])
                for index in first..<(first + count) {
                    model.attach(id, HistoryModel.Name(parent: directory, name: BytePath("l\(index)")))
                }
                left -= count
            }
        default:
            let new = fresh(in: volume)
            guard let target = model.path(new) else { return }
            emit(.link, [path, target])
            model.attach(id, new)
        }
    }

    private mutating func changeContent(_ action: Action) {
        if action == .sync { return emit(.sync, []) }
        if action == .read {
            guard let path = anyPath() else { return }
            return emit(.read, [path])
        }
        guard let path = regularPath() else { return }
        switch action {
        case .write: emit(.write, [path], [offset(), 1 + random.below(9000), seed()])
        case .append: emit(.append, [path], [1 + random.below(5000), seed()])
        case .truncate: emit(.truncate, [path], [size()])
        case .punch: emit(.punch, [path], [offset(), 1 + random.below(20000)])
        case .zero: emit(.zero, [path], [offset(), 1 + random.below(20000)])
        case .allocate: emit(.allocate, [path], [offset(), 1 + random.below(100_000), random.below(2)])
        case .rewrite: emit(.rewrite, [path])
        case .defrag: emit(.defrag, [path])
        case .fsync: emit(.fsync, [path])
        case .reflink where random.chance(50):
            let name = fresh()
            guard let target = model.path(name) else { return }
            emit(.reflink, [path, target])
            model.add(.regular, name)
        default:
            guard let other = regularPath() else { return }
            switch action {
            case .reflink: emit(.reflink, [path, other])
            case .dedupe: emit(.dedupe, [path, other])
            case .copy: emit(.copy, [path, other], [offset(), offset(), 1 + random.below(20000)])
            default:
                emit(
                    .clone, [path, other],
                    [4096 * random.below(4), 4096 * random.below(4), 4096 * random.below(5)])
            }
        }
    }

    private mutating func rename(_ from: HistoryModel.Name, _ to: HistoryModel.Name) {
        guard let old = model.path(from), let new = model.path(to) else { return }
        emit(.rename, [old, new])
        model.rename(from, to)
    }

    private mutating func move(_ action: Action) {
        let wantsDirectory = action == .moveDirectory || action == .swapParentAndChild
        let chosen = wantsDirectory || random.chance(40) ? some(.directory) : someFile()
        guard let id = chosen, let kind = model.node(id)?.kind, let from = someName(of: id) else { return }
        let volume = model.volume(of: from.parent)
        switch action {
        case .rename, .moveDirectory:
            let to = fresh(in: volume)
            if kind.isDirectory, model.isInside(to.parent, id) { return }
            rename(from, to)
        case .thereAndBack:
            let to = fresh(in: volume)
            if kind.isDirectory, model.isInside(to.parent, id) { return }
            rename(from, to)
            rename(to, from)
        case .swapParentAndChild:
            // a/b to x, then a to x/…: who was above is below.
            let inner = model.node(id)?.children.filter { model.node($0.node)?.kind == .directory } ?? []
            guard let child = random.pick(inner) else { return }
            let place = random.chance(50) ? from.parent : 0
            guard model.volume(of: place) == volume else { return }
            rename(HistoryModel.Name(parent: id, name: child.name), freshName(in: place))
            let below =
                random.chance(50)
                ? HistoryModel.Name(parent: child.node, name: child.name) : freshName(in: child.node)
            if model.child(child.node, below.name) != nil { return }
            rename(from, below)
        default:
            let others = model.ids { other in
                other.kind.isDirectory == kind.isDirectory && other.kind != .subvolume
            }
            guard let otherID = random.pick(others), otherID != id || !kind.isDirectory,
                let other = someName(of: otherID), model.volume(of: other.parent) == volume
            else { return }
            if kind.isDirectory, model.isInside(other.parent, id) || model.isInside(from.parent, otherID) {
                return
            }
            switch action {
            case .renameOver: rename(from, other)
            case .exchange:
                // Of any two types, if one does not lie in the other.
                guard let left = model.path(from), let right = model.path(other) else { return }
                emit(.exchange, [left, right])
                model.exchange(from, other)
            case .rotate:
                // Three names move on by one.
                guard let third = someName(of: random.pick(others)), model.volume(of: third.parent) == volume
                else { return }
                let temporary = freshName(in: random.chance(50) ? from.parent : third.parent)
                rename(from, temporary)
                rename(third, from)
                rename(other, third)
                rename(temporary, other)
            default:
                let temporary = freshName(in: from.parent)
                rename(from, temporary)
                rename(other, from)
                rename(temporary, other)
            }
        }
    }

    private mutating func replace(_ action: Action) {
        switch action {
        case .replace:
            guard let id = someFile(), let name = someName(of: id), let kind = model.node(id)?.kind,
                let path = model.path(name)
            else { return }
            emit(.replace, [path])
            model.remove(name)
            model.add(kind, name)
        case .twin:
            guard let id = some(.regular), let path = model.path(id) else { return }
            let name = fresh()
            guard let copy = model.path(name) else { return }
            emit(.twin, [path, copy])
            twins.append((id, model.add(.regular, name)))
        case .join:
            // Two equal files become one with two names.
            guard let (left, right) = random.pick(twins), let name = someName(of: right),
                let other = someName(of: left),
                let path = model.path(other), let victim = model.path(name),
                model.volume(of: name.parent) == model.volume(of: other.parent)
            else { return }
            emit(.unlink, [victim])
            model.remove(name)
            emit(.link, [path, victim])
            model.attach(left, name)
        case .recreate:
            guard let name = someName(of: some(.regular)), let path = model.path(name) else { return }
            emit(.unlink, [path])
            model.remove(name)
            create(name)
        case .retype:
            guard let name = someName(of: random.pick(model.ids { _ in true })), let path = model.path(name)
            else { return }
            emit(.rmtree, [path])
            model.remove(name)
            switch random.below(6) {
            case 0: create(name)
            case 1:
                guard let made = makeDirectory(name) else { return }
                if random.chance(50) { create(freshName(in: made)) }
            case 2:
                emit(.symlink, [path, target()])
                model.add(.symbolicLink, name)
            case 3: makeSpecial(.fifo, name)
            case 4: makeSpecial(.device, name)
            default: makeSpecial(.socket, name)
            }
        case .rebuildDirectory:
            // The same names below a directory of the same name, all of new inodes.
            guard let id = some(.directory), let name = someName(of: id), let path = model.path(name),
                let children = model.node(id)?.children
            else { return }
            emit(.rmtree, [path])
            model.remove(name)
            guard let made = makeDirectory(name) else { return }
            for child in children.prefix(4) where !random.chance(25) {
                create(HistoryModel.Name(parent: made, name: child.name))
            }
        default:
            let name = fresh()
            create(name)
            guard let path = model.path(name) else { return }
            emit(.unlink, [path])
            model.remove(name)
        }
    }

    private mutating func changeMetadata(_ action: Action) {
        guard let path = action == .setCapability ? regularPath() : anyPath() else { return }
        switch action {
        case .chmod: emit(.chmod, [path], [mode()])
        case .chown:
            emit(.chown, [path], [random.pick([0, 1, 1000, 65534, 4_000_000_000]) ?? 0, random.below(3)])
        case .setAttribute:
            let length = random.pick([0, 1, 20, 200, 3000]) ?? 1
            guard let id = random.pick(model.ids { $0.kind != .socket }),
                let path = model.path(someName(of: id))
            else { return }
            // What is no file and no directory takes no user.* attribute (xattr(7)).
            let isPlain = model.node(id)?.kind == .regular || model.node(id)?.kind.isDirectory == true
            let name = isPlain ? attributeName() : BytePath("trusted.t")
            emit(.setattr, [path, name], [length, seed()])
            attributes.append((id, name))
        case .deleteAttribute:
            guard let (id, name) = random.pick(attributes), let path = model.path(someName(of: id)) else {
                return
            }
            emit(.delattr, [path, name])
        case .setCapability: emit(.setcap, [path], [1 << random.below(20)])
        case .setACL: emit(.setacl, [path], [random.below(2), 1 + random.below(3), random.below(8)])
        case .property: emit(.property, [path, BytePath(random.pick(["zstd", "zlib", "none"]) ?? "none")])
        case .touch:
            let seconds = random.pick([
                0, 1, 1_500_000_000, 1_500_000_001, -1, -2_000_000_000, 4_294_967_296, 9_999_999_999,
            ])
            emit(
                .touch, [path],
                [seconds ?? 0, random.pick([0, 1, 999_999_999, random.below(1_000_000_000)]) ?? 0])
        default: emit(.same, [path], [random.below(4)])
        }
    }
}
