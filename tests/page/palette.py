"""Makes a screenshot small: the same picture with 96 colours, which is enough for text on plain ground."""

import base64
import struct
import zlib

from playwright.sync_api import Page

# Runs in an empty page: the 96 most frequent colours, and for each other one the nearest of them.
_INDEX = """async (png) => {
  const bytes = Uint8Array.from(atob(png), (character) => character.charCodeAt(0));
  const bitmap = await createImageBitmap(new Blob([bytes], {type: "image/png"}));
  const canvas = new OffscreenCanvas(bitmap.width, bitmap.height);
  const context = canvas.getContext("2d");
  context.drawImage(bitmap, 0, 0);
  const {data} = context.getImageData(0, 0, bitmap.width, bitmap.height);
  const pixels = new Uint32Array(data.buffer).map((pixel) => pixel & 0xffffff);
  const counts = new Map();
  for (const pixel of pixels) counts.set(pixel, (counts.get(pixel) ?? 0) + 1);
  const palette = [...counts].sort((a, b) => b[1] - a[1] || a[0] - b[0]).slice(0, 96).map(([pixel]) => pixel);
  const far = (a, b) => [0, 8, 16].reduce((sum, bits) => sum + (((a >> bits) & 255) - ((b >> bits) & 255)) ** 2, 0);
  const nearest = new Map(palette.map((pixel, place) => [pixel, place]));
  const place = (pixel) => {
    if (!nearest.has(pixel)) {
      let best = 0;
      palette.forEach((colour, one) => { if (far(colour, pixel) < far(palette[best], pixel)) best = one; });
      nearest.set(pixel, best);
    }
    return nearest.get(pixel);
  };
  const indices = new Uint8Array(pixels.length);
  pixels.forEach((pixel, at) => { indices[at] = place(pixel); });
  const url = await new Promise((resolve) => {
    const reader = new FileReader();
    reader.onload = () => resolve(reader.result);
    reader.readAsDataURL(new Blob([indices]));
  });
  return {width: bitmap.width, height: bitmap.height, palette, indices: url.split(",")[1]};
}"""


def reduce(png: bytes, page: Page) -> bytes:
    """Return the picture with 96 colours. ``page`` is an empty one, where the work is done."""
    found = page.evaluate(_INDEX, base64.b64encode(png).decode())
    width, height = found["width"], found["height"]
    indices = base64.b64decode(found["indices"])
    rows = b"".join(b"\0" + indices[row * width : (row + 1) * width] for row in range(height))
    colours = b"".join(struct.pack("<I", colour)[:3] for colour in found["palette"])
    header = struct.pack(">IIBBBBB", width, height, 8, 3, 0, 0, 0)
    chunks = ((b"IHDR", header), (b"PLTE", colours), (b"IDAT", zlib.compress(rows, 9)), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(_chunk(kind, data) for kind, data in chunks)


def _chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
