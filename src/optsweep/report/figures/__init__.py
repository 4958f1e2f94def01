"""The figures of a report: a module per kind, each of which plans what its data suffice for; `canvas` is their look."""
