#!/usr/bin/env python3
"""The peer of the extraction benchmark: PyTorch, eager, f32, with the reference implementation's model class.

    python3 scripts/bench/peer_extract.py --threads 2 [--files FOLDER]

Times the image tower of ViT-B-16 on random normalised pixels (images/s of the median batch) and, with --files, the whole
way from image files as the reference goes it (torchvision's Resize, bicubic, ToTensor, Normalize), decoding in --workers
processes beside. Needs torch, torchvision, pillow and cn_clip."""
import argparse
import os
import resource
import statistics
import time

import torch


def parse():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--batch", type=int, default=32)
    p.add_argument("--batches", type=int, default=5)
    p.add_argument("--threads", type=int, default=os.cpu_count())
    p.add_argument("--workers", type=int, default=1)
    p.add_argument("--files", help="folder of images")
    return p.parse_args()


def model():
    from cn_clip.clip.model import CLIP
    return CLIP(512, 224, 12, 768, 16, 21128, 0.1, "gelu", 0.1, 768, 0.02, 3072, 512, 12, 12, 2, vision_head_width=64).eval()


class Files(torch.utils.data.Dataset):
    def __init__(self, folder):
        from torchvision import transforms
        self.paths = sorted(os.path.join(root, name) for root, _, names in os.walk(folder) for name in names)
        self.transform = transforms.Compose([
            transforms.Resize((224, 224), interpolation=transforms.InterpolationMode.BICUBIC),
            lambda image: image.convert("RGB"), transforms.ToTensor(),
            transforms.Normalize((0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711))])

    def __len__(self):
        return len(self.paths)

    def __getitem__(self, i):
        from PIL import Image
        return self.transform(Image.open(self.paths[i]))


@torch.no_grad()
def encode(net, pixels):
    features = net(pixels, None)
    return features / features.norm(dim=-1, keepdim=True)


def main():
    args = parse()
    torch.set_num_threads(args.threads)
    net, pixels, seconds = model(), torch.randn(args.batch, 3, 224, 224), []
    encode(net, pixels)
    for _ in range(args.batches):
        start = time.perf_counter()
        encode(net, pixels)
        seconds.append(time.perf_counter() - start)
    print(f"pytorch {torch.__version__} ViT-B-16 image tower, batch {args.batch} f32: "
          f"{args.batch / statistics.median(seconds):.2f} images/s (fastest {args.batch / min(seconds):.2f}), "
          f"peak {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024} MiB")
    if not args.files:
        return
    loader = torch.utils.data.DataLoader(Files(args.files), batch_size=args.batch, num_workers=args.workers)
    start, count = time.perf_counter(), 0
    for batch in loader:
        count += len(encode(net, batch))
    print(f"pytorch ViT-B-16 from files, batch {args.batch} f32: {count / (time.perf_counter() - start):.2f} images/s")


if __name__ == "__main__":
    main()
