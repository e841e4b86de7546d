import Varve

/// What a build orchestrator does that depends on the package and imports `Varve` alone (Scripts/check-downstream).
@main
struct Orchestrator {
    static func main() async throws {
        let place = BytePath(CommandLine.arguments[1])
        let layout = place.appending("images")
        let image = BytePath("\(layout):base")
        let images = Images()
        try await images.createLayout(layout)
        try await images.create(image)
        try await images.insert(BytePath(CommandLine.arguments[0]), into: image, at: "bin/orchestrator")
        print("tags \(try await images.tags(of: layout))")

        let store = try await LayerStore.create(place.appending("store"))
        for name: BytePath in ["one", "two"] {
            var options = Unpacking.Options()
            options.chains = .all
            let result = try await store.unpack(image, into: place.appending(name), options: options)
            print("\(name): \(result.layersInPlace) of \(result.layers) layers in place")
        }
        let delta = try await store.delta(of: place.appending("two"))
        print("\(delta.changes.count) changes, \(try await store.chains().count) chains")
        try await store.removeBundles([place.appending("one"), place.appending("two")])
        let report = try await store.collectGarbage()
        print("\(report.chains.count) chains collected")
    }
}
