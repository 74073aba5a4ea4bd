// A figure opens by itself, in full size, for those whose screen is too narrow for it.

document.addEventListener("DOMContentLoaded", () => {
  for (const image of document.querySelectorAll("article img")) {
    if (image.closest("a") || image.src.startsWith("data:")) continue;
    const link = document.createElement("a");
    link.href = image.src;
    link.title = "Open in full size";
    link.className = "figure-link";
    image.replaceWith(link);
    link.append(image);
  }
});
