// Copy buttons. The page also works without this script; it then has none. Shell prompts are not copied.
for (const snippet of document.querySelectorAll(".snippet")) {
  const button = snippet.querySelector("button");
  if (!navigator.clipboard) continue;
  button.hidden = false;
  button.addEventListener("click", async () => {
    try {
      await navigator.clipboard.writeText(snippet.querySelector("code").textContent.replace(/^\$ /gm, ""));
      button.textContent = "Copied";
    } catch {
      button.textContent = "Cannot copy";
    }
    setTimeout(() => { button.textContent = "Copy"; }, 1500);
  });
}
