"""Tables of servers, clusters, capacity and robustness."""

from __future__ import annotations

from benchmarks.page_tables.stored import Rows, read_result

__all__ = ["capacity", "capacity_rates", "cluster", "robustness", "server"]


def server() -> Rows:
    result = read_result("server.json")
    return [
        ["Triton over HTTP", "images", "batch", "rate over that of the same runtime without it"],
        [
            f"{result['versions']['triton']}, {result['server_backend']}",
            str(result["images"]),
            str(result["batch_size"]),
            f"{result['ratio_median']:.2f}",
        ],
    ]


def cluster() -> Rows:
    result = read_result("cluster.json")
    return [
        ["Ray, two nodes of one processor each", "images", "time over that of two plain shards"],
        [result["versions"]["ray"], f"{result['images']:,}", f"{result['ratio_median']:.2f}"],
    ]


def robustness() -> Rows:
    families = read_result("robustness.json")["families"]
    rows = [["family", "cases", "crashes and hangs"]]
    return rows + [
        [name, f"{family['cases']:,}", str(sum(family["failed"].values()))]
        for name, family in families.items()
    ]


def capacity_rates() -> Rows:
    result = read_result("capacity.json")
    rates = result["rates"]
    return [
        ["measured, images of 512x512 from files to masks", "value", "from"],
        ["one processor, int8, OpenVINO, slower of two machines",
         f"{rates['processor_images_per_s']:.1f} images/s",
         "`pipeline.json`, `epyc/pipeline.json`"],
        ["one H200 and 16 processors, fp16, ONNX Runtime",
         f"{rates['gpu_images_per_s']:.0f} images/s", "`h200/pipeline.json`"],
        ["the same over the backend alone", f"{rates['gpu_share']:.2f}", "`h200/pipeline.json`"],
        ["time with Ray over plain shards", f"{rates['ray_cost']:.2f}", "`cluster.json`"],
        ["memory of one process, at most", f"{rates['process_mib']:,.0f} MiB",
         "`pipeline.json`, `epyc/pipeline.json`"],
    ]  # fmt: skip


def capacity() -> Rows:
    rows = [
        ["workload", "images/s", "processors, int8", "or GPUs", "nodes", "disk, MB/s",
         "network, Gbit/s", "file operations/s", "stored, TB", "bound"],
    ]  # fmt: skip
    for need in read_result("capacity.json")["workloads"]:
        stored = need["stored_tb"]
        rows.append(
            [
                need["name"],
                f"{need['images_per_s']:,.0f}",
                f"{need['processors']:,}",
                f"{need['gpus']:,}",
                "-" if need["nodes"] is None else f"{need['nodes']:,}",
                f"{need['moved_mb_per_s']:,.0f}",
                f"{need['network_gbit_per_s']:,.2f}",
                f"{need['file_operations_per_s']:,.0f}",
                "-" if stored is None else f"{stored:,.1f}",
                need["bound"],
            ]
        )
    return rows
