"use strict";
// Each slider shows one frame of the pair above it.
for (const slider of document.querySelectorAll("input[data-frames]")) {
  const frames = [...document.getElementById(slider.dataset.frames).children];
  const box = slider.closest(".slide");
  const show = () => {
    const at = slider.valueAsNumber;
    frames.forEach((frame, k) => { frame.hidden = k !== at; });
    box.querySelector("output").textContent = frames[at].dataset.update;
    box.style.setProperty("--at", at / Math.max(1, frames.length - 1));
    slider.setAttribute("aria-valuetext", frames[at].dataset.text);
  };
  slider.addEventListener("input", show);
  show();
}
