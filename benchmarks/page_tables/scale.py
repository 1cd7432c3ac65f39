"""Tables of servers, clusters, capacity and robustness."""

from __future__ import annotations

from benchmarks.page_tables.stored import Rows, read_result

__all__ = [
    "capacity",
    "capacity_assumed",
    "capacity_rates",
    "capacity_transfer",
    "cluster",
    "robustness",
    "server",
]


def server() -> Rows:
    """Return the rate through Triton divided by the rate without it."""
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
    """Return the time with Ray divided by the time with plain shards."""
    result = read_result("cluster.json")
    return [
        ["Ray, two nodes of one processor each", "images", "time over that of two plain shards"],
        [result["versions"]["ray"], f"{result['images']:,}", f"{result['ratio_median']:.2f}"],
    ]


def robustness() -> Rows:
    """Return the numbers of mutated files of each family, and of failures."""
    families = read_result("robustness.json")["families"]
    return [["family", "cases", "crashes and hangs"]] + [
        [name, f"{family['cases']:,}", str(sum(family["failed"].values()))]
        for name, family in families.items()
    ]


def capacity_rates() -> Rows:
    """Return the measured rates that the capacity table rests on."""
    result = read_result("capacity.json")
    rates = result["rates"]
    return [
        ["measured, images of 512x512 from files to masks", "value", "from"],
        ["one processor, int8, OpenVINO, slower of two machines",
         f"{rates['processor_images_per_s']:.1f} images/s",
         "`pipeline.json`, `xeon/pipeline.json`"],
        ["one H200 and 16 processors, fp16, ONNX Runtime",
         f"{rates['gpu_images_per_s']:.0f} images/s", "`h200/pipeline.json`"],
        ["the same over the backend alone", f"{rates['gpu_share']:.2f}", "`h200/pipeline.json`"],
        ["time with Ray over plain shards", f"{rates['ray_cost']:.2f}", "`cluster.json`"],
        ["memory of one process, at most", f"{rates['process_mib']:,.0f} MiB",
         "`pipeline.json`, `xeon/pipeline.json`"],
    ]  # fmt: skip


def capacity() -> Rows:
    """Return processors, GPUs and nodes of each workload, and its bottleneck."""
    head = ["workload", "images/s", "processors, int8", "or GPUs, fp16", "Ray nodes", "bound"]
    body = [
        [
            need["name"],
            f"{need['images_per_s']:,.0f}",
            f"{need['processors']:,}",
            f"{need['gpus']:,}",
            "-" if need["nodes"] is None else f"{need['nodes']:,}",
            need["bound"],
        ]
        for need in read_result("capacity.json")["workloads"]
    ]
    return [head, *body]


def capacity_transfer() -> Rows:
    """Return disk, network and file operations of each workload."""
    head = [
        "workload", "disk, MB/s", "network, Gbit/s", "file operations/s", "file servers",
        "stored, TB",
    ]  # fmt: skip
    body = [
        [
            need["name"],
            f"{need['moved_mb_per_s']:,.0f}",
            f"{need['network_gbit_per_s']:,.2f}",
            f"{need['file_operations_per_s']:,.0f}",
            "-" if need["file_servers"] is None else f"{need['file_servers']:,}",
            "-" if need["stored_tb"] is None else f"{need['stored_tb']:,.1f}",
        ]
        for need in read_result("capacity.json")["workloads"]
    ]
    return [head, *body]


def capacity_assumed() -> Rows:
    """Return the assumptions of the capacity table."""
    assumed = read_result("capacity.json")["assumed"]
    return [
        ["assumed, not measured", "value"],
        ["processors of a node", f"{assumed['node_processors']}"],
        ["link of a node or a file server", f"{assumed['link_gbit_per_s']} Gbit/s"],
        ["share of a link that can be used", f"{assumed['usable_share_of_a_link']:.0%}"],
        ["disk of one file server", f"{assumed['disk_mb_per_s']} MB/s"],
        ["file operations of one file server", f"{assumed['file_operations_per_s']:,} a second"],
        ["file operations of an image", f"{assumed['file_operations_per_image']}"],
        ["mask and report line of an image", f"{assumed['written_bytes_per_image']:,} bytes"],
        ["share of the processors that a line may take", f"{assumed['load']:.0%}"],
    ]
